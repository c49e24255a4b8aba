"""Responses to features, images and words."""
