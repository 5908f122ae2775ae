"""What a data set says of itself: its plan, its manifest, what it refused."""
