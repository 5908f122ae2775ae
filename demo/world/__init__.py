"""The drawn world itself: shapes, scenes, and how they are drawn."""
