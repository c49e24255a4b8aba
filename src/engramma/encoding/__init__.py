"""Features to responses."""
