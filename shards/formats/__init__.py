"""Formats of other systems: eleven layouts of region features, read and written."""
