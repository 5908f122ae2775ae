"""A drawn set to learn a detector from, and images with their numbers in them."""

from pathlib import Path

import pytest

from tests.drawn_boxes import drawn, one_thread
from tests.extract.numbered_images import draw

__all__ = ["drawn", "one_thread"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven images of three shapes, each with its number in the first pixel."""
    return draw(tmp_path / "images", 11)
