"""Training a detector of one's own."""
