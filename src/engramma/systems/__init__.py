"""Published systems: one family a folder, one paper a file."""
