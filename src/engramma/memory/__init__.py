"""Memories: sequence layers, episodic stores, associative memories."""
