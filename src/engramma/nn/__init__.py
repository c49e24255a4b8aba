"""Torch parts that several rooms share, and the one training loop."""
