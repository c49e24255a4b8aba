"""Sequence layers with a memory, and memories around language models."""
