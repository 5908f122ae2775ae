"""The formats of other systems, one file for each family."""
