"""What language models encode, remember and compute; evaluators and orchestrations of them."""
