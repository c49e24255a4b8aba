"""Dissimilarities, their comparison, and inference on both."""
