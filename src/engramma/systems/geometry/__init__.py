"""Representational geometry, topology and codes."""
