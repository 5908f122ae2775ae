"""The files in which a data set describes itself: its plan, its manifest, what it refused."""
