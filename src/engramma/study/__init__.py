"""One recording explained: ceiling, encoding, decoding and geometry."""
