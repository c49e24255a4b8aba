"""Language models as text in, text out: endpoints, transcripts, and what runs several of them."""
