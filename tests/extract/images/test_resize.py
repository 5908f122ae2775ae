"""The one resizing rule: shorter side, bounded by the longer one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semvlp.extract.images.resize import ResizeRule, resize, resized_shape


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
    assert resized_shape(*shape, ResizeRule(800, 1333)) == expected


@given(st.integers(8, 5000), st.integers(8, 5000))
def test_sides_stay_within_their_bounds(height: int, width: int) -> None:
    tall, wide = resized_shape(height, width, ResizeRule(600, 1000))
    assert 1 <= min(tall, wide) <= 600
    assert max(tall, wide) <= 1000
    assert min(tall, wide) == 600 or max(tall, wide) == 1000
    assert (wide, tall) == resized_shape(width, height, ResizeRule(600, 1000))


def test_no_sides_leave_the_image_as_it_is() -> None:
    image = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    resized = resize(image, ResizeRule(0, 0))
    assert resized.pixels is image
    assert resized.back == (1, 1)


def test_pixels_are_those_of_pillows_bilinear_filter() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize((8, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(image, ResizeRule(8, 100)).pixels, np.asarray(expected))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Of py-faster-rcnn's prep_im_for_blob with 600 and 1000; detectron2 rounds 562.5 up.
        ((480, 640), (600, 800)),
        ((375, 500), (600, 800)),
        ((427, 640), (600, 899)),
        ((360, 640), (562, 1000)),
        ((640, 360), (1000, 562)),
    ],
)
def test_shapes_of_caffe(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(*shape, ResizeRule(600, 1000, "cv2")) == expected


# cv2.resize of OpenCV 4.11 without Intel's library: float32, fx = fy = 5 / 3, INTER_LINEAR.
CV2 = [
    [0.0, 8.400001, 21.0, 33.6, 46.200005, 58.8, 63.0],
    [33.600002, 42.000004, 54.6, 67.200005, 79.8, 92.40001, 96.600006],
    [84.0, 92.4, 105.0, 117.600006, 130.2, 142.8, 147.0],
    [134.4, 142.8, 155.4, 168.0, 180.6, 193.2, 197.4],
    [168.0, 176.4, 189.0, 201.6, 214.2, 226.8, 231.0],
]
# The last digit of a float32 below 256: OpenCV may fuse a product and a sum.
LAST_DIGIT = 1.6e-5


def test_pixels_are_those_of_opencv() -> None:
    image = (np.arange(3 * 4 * 3) * 7 % 256).astype(np.uint8).reshape(3, 4, 3)
    resized = resize(image, ResizeRule(5, 100, "cv2"))
    assert resized.pixels.dtype == np.float32
    assert resized.pixels.shape == (5, 7, 3)
    np.testing.assert_allclose(resized.pixels[..., 0], CV2, rtol=0, atol=LAST_DIGIT)
    # The factor that was asked for, for both axes, whatever the rounded size is.
    assert resized.back == (3 / 5, 3 / 5)


def test_opencv_averages_nothing_when_an_image_shrinks() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[::4] = 200
    shrunk = resize(image, ResizeRule(10, 100, "cv2")).pixels
    # Rows 1.5, 5.5, ... lie between dark rows alone; Pillow would see the light ones.
    assert shrunk.max() == 0
    assert resize(image, ResizeRule(10, 100)).pixels.max() > 0
