"""Inside language models: reading, patching and removing what they compute."""
