"""Stimulus to features."""
