"""Generators with ground truth."""
