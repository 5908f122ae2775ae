"""The study: does it help to learn in both modes, where, and by how much."""
