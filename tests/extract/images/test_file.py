"""Finding images, and decoding every kind of file people have; damage is refused with a reason."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from semvlp.extract.images.find import MAX_PIXELS, ImageFile, Refused, find_images, load
from semvlp.extract.images.kinds import FORMATS

ORIENTATION = 0x0112


def gradient(height: int = 24, width: int = 36) -> NDArray[np.uint8]:
    """Red grows to the right, green downwards; blue marks the upper left quarter."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[: height // 2, : width // 2, 2] = 255
    return image


def saved(image: Image.Image, path: Path, **options: object) -> ImageFile:
    image.save(path, **options)
    return ImageFile("x", path)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_rgb_keeps_every_value(tmp_path: Path, name: str) -> None:
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    pixels = load(saved(Image.fromarray(gradient()), tmp_path / name, **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    """The stored pixels are turned so that the upright image is the gradient."""
    upright = gradient()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    options |= {"lossless": True} if name == "a.webp" else {}
    pixels = load(saved(image, tmp_path / name, exif=exif, **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 8


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = gradient()[..., 0]
    pixels = load(saved(Image.fromarray(grey), tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = gradient()[..., 0] > 100
    pixels = load(saved(Image.fromarray(bits), tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels[..., 2], bits * np.uint8(255))


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(gradient()).quantize(64)
    pixels = load(saved(image, tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels, np.array(image.convert("RGB")))


def test_cmyk_jpeg_has_the_right_colours(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")
    pixels = load(saved(image, tmp_path / "a.jpg", quality=95))
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() < 12


def test_transparency_shows_white(tmp_path: Path) -> None:
    image = np.dstack([gradient(), np.full((24, 36), 255, np.uint8)])
    image[:, :10, 3] = 0
    image[:, 10:20, 3] = 51
    pixels = load(saved(Image.fromarray(image), tmp_path / "a.png"))
    assert (pixels[:, :10] == 255).all()
    expected = np.rint(0.2 * image[:, 10:20, :3] + 0.8 * 255)
    assert np.abs(pixels[:, 10:20] - expected).max() <= 1
    np.testing.assert_array_equal(pixels[:, 20:], gradient()[:, 20:])


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_every_way_to_store_transparency(tmp_path: Path, mode: str) -> None:
    """A black image whose black is transparent, or which has an empty alpha channel, is white."""
    image = Image.new(mode, (9, 9), (0, 0) if mode == "LA" else 0)
    key = {"P": 0, "L": 0, "RGB": (0, 0, 0)}
    options = {"transparency": key[mode]} if mode in key else {}
    assert (load(saved(image, tmp_path / "a.png", **options)) == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    wide = np.linspace(0, 65535, 24 * 36).reshape(24, 36).astype(np.uint16)
    pixels = load(saved(Image.fromarray(wide), tmp_path / name))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(wide / 257))
    assert len(np.unique(pixels)) == 256


def test_16_bit_rgb_png_is_scaled_not_clipped(tmp_path: Path) -> None:
    """Pillow cannot write one, so the file is made chunk by chunk."""
    wide = (gradient(8, 16).astype(">u2") * 257).reshape(8, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 16, 8, 16, 2, 0, 0, 0)}
    chunks |= {b"IDAT": zlib.compress(rows), b"IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks.items():
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        data += struct.pack(">I", len(body)) + kind + body + checksum
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(load(ImageFile("x", tmp_path / "a.png")), gradient(8, 16))


def test_transparent_16_bit_grey_shows_white(tmp_path: Path) -> None:
    """One value stands for transparent; its neighbour does not."""
    wide = np.full((8, 16), 300, np.uint16)
    wide[:, 5] = 301
    Image.fromarray(wide).save(tmp_path / "a.png", transparency=300)
    expected = np.full((8, 16), 255, np.uint8)
    expected[:, 5] = 1
    grey = load(ImageFile("x", tmp_path / "a.png"))
    np.testing.assert_array_equal(grey, np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "lime", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    pixels = load(saved(frames[0], tmp_path / name, **options))
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 8


def test_content_counts_not_the_extension(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(load(ImageFile("x", tmp_path / "a.jpg")), gradient())


def encoded(format: str) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data, format)
    return data.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, format: str, part: float) -> None:
    data = encoded(format)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(Refused, match=r"damaged image: .|not an image"):
        load(ImageFile("x", path))


def test_what_is_no_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    cases = {
        b"": "the file is empty",
        b"<html>404</html>": "not an image in one of the formats BMP, GIF, JPEG",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "not an image in one of the formats",
    }
    for data, reason in cases.items():
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(Refused, match=reason):
            load(ImageFile("x", tmp_path / "a.jpg"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read: No such file"):
        load(ImageFile("x", tmp_path / "none.jpg"))


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (4000, 1)])
def test_photographs_of_any_shape_are_taken(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = load(saved(Image.new("RGB", size), tmp_path / "a.png"))
    assert pixels.shape == (*size[::-1], 3)


def test_avif_is_taken_where_pillow_reads_it(tmp_path: Path) -> None:
    if "AVIF" not in FORMATS:
        pytest.skip("this Pillow reads no AVIF")
    image = saved(Image.fromarray(gradient()), tmp_path / "a.avif", quality=100)
    assert [file.path for file in find_images(tmp_path)] == [image.path]
    assert np.abs(load(image).astype(int) - gradient()).mean() < 8


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIF")])
def test_a_wrong_extension_is_told(tmp_path: Path, brand: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(99))
    with pytest.raises(Refused, match=f"but {kind}; save it as JPEG"):
        load(ImageFile("x", tmp_path / "a.jpg"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9500, 13500])
def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    image = saved(Image.new("1", (side, side)), tmp_path / "a.png")
    assert image.path.stat().st_size < 100_000
    with pytest.raises(Refused, match=f"more than {MAX_PIXELS} pixels"):
        load(image)


def test_pixels_without_a_known_white_are_refused(tmp_path: Path) -> None:
    for values in (np.ones((9, 9), np.float32), np.full((9, 9), 70000, np.int32)):
        with pytest.raises(Refused, match="no known white"):
            load(saved(Image.fromarray(values), tmp_path / "a.tif"))


def test_damage_of_any_kind_gives_pixels_or_a_reason(tmp_path: Path) -> None:
    """Bytes changed at random: never another exception, which would end the whole run."""
    rng = random.Random(0)
    files = [encoded(format) for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]
    path = tmp_path / "a.jpg"
    reasons, shapes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            data = bytearray(rng.choice(files))
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(min(len(data), rng.choice((64, 10**6))))] = rng.randrange(256)
            path.write_bytes(data)
            try:
                shapes.append(load(ImageFile("x", path)).shape)
            except Refused as error:
                reasons.append(str(error))
    assert len(reasons) > 50
    assert all(reasons)
    assert len(shapes) > 50
    assert all(len(shape) == 3 for shape in shapes)


def test_every_real_photograph_loads(real_data: Path) -> None:
    found = find_images(real_data / "coco" / "images")
    assert len(found) == 488
    for image in found:
        assert load(image).shape[2] == 3
