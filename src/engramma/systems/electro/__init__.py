"""Decoding EEG, MEG and intracranial recordings."""
