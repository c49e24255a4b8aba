"""Drawings of the object categories, one module a theme."""
