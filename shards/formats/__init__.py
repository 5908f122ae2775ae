"""Formats of other systems: nine layouts of region features, read and written."""
