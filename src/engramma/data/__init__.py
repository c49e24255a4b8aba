"""Recordings: schema, readers, splits and noise ceilings."""
