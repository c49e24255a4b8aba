"""From features to stimuli, and models that continue them."""
