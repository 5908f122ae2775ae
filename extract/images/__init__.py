"""Images: found, read, and resized."""
