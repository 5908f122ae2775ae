"""The one resizing rule: shorter side, bounded by the longer one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semvlp.extract.resize import resize, resized_shape


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Of detectron2's ResizeShortestEdge.get_output_shape(height, width, 800, 1333).
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((375, 1242), (402, 1333)),
        ((1242, 375), (1333, 402)),
        ((800, 800), (800, 800)),
    ],
)
def test_published_shapes(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(*shape, shorter=800, longer=1333) == expected


@given(st.integers(8, 5000), st.integers(8, 5000))
def test_sides_stay_within_their_bounds(height: int, width: int) -> None:
    tall, wide = resized_shape(height, width, shorter=600, longer=1000)
    assert 1 <= min(tall, wide) <= 600
    assert max(tall, wide) <= 1000
    assert min(tall, wide) == 600 or max(tall, wide) == 1000
    assert (wide, tall) == resized_shape(width, height, shorter=600, longer=1000)


def test_no_sides_leave_the_image_as_it_is() -> None:
    image = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    assert resize(image, shorter=0, longer=0) is image


def test_pixels_are_those_of_pillows_bilinear_filter() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize((8, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(image, shorter=8, longer=100), np.asarray(expected))
