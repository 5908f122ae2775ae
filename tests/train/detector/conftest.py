"""A drawn set to learn a detector from."""

from tests.drawn_boxes import drawn, one_thread

__all__ = ["drawn", "one_thread"]
