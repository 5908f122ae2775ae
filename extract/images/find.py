"""Images to work on: finding them, naming them, and decoding each in one defined way.

H height, W width in pixels, after the EXIF orientation was applied.
"""

import io
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.extract.images.file import ImageFile, Refused, in_tar, other_file, told_apart
from semvlp.extract.images.kinds import EXTENSIONS, FORMATS, HEAD_BYTES, is_image, kind_of
from semvlp.shards.record import former_key

__all__ = [
    "DECODING_VERSION",
    "EXTENSIONS",
    "ImageFile",
    "Refused",
    "find_images",
    "from_bytes",
    "images_by_id",
    "load",
]

log = logging.getLogger(__name__)

DECODING_VERSION = 2
"""Part of the profile of extracted regions: raise it when `load` gives other pixels."""

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs

# What Pillow's decoders raise on damaged files; it does not turn them all into OSError.
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError),
    *(EOFError, OverflowError, struct.error, zlib.error),
)
# EXIF orientation -> what brings the image upright (Exif 2.32, table 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_images(source: Path, *, others: bool = False) -> list[ImageFile]:
    """Return the images of a directory (with its subdirectories), a list or tars, sorted by id.

    A directory gives its image files by extension, or the images of its `.tar` files; hidden files
    are left out. A list is `.txt` (a path a line) or `.json` (a list of paths, or an object of ids
    and paths), paths relative to the list. A pattern such as `train-*.tar` stands for all files
    that match. Tars are read in place.

    Args:
        others: also return images in directories and tars that are not taken: of kinds that cannot
            be read, and without an extension; and one for the end of a tar that is damaged or cut
            short. Each says why.

    Raises:
        InputError: nothing found, a damaged list, a damaged tar unless `others` are returned, both
            images and tars in a directory, or several images of one id.
    """
    if source.is_dir():
        images = _in_directory(source, others)
    elif source.is_file():
        images = _in_file(source, others)
    else:
        matching = sorted(source.parent.glob(source.name))
        images = [image for path in matching for image in _in_file(path, others)]
    taken = [image for image in images if not image.other]
    if not taken:
        seen = f"; {images[0]}: {images[0].unread}" if images else ""
        raise InputError(
            f"{source}: no images there{seen}; give a directory of "
            f"{', '.join(sorted(EXTENSIONS))}, a .txt or .json list of files, or a .tar"
        )
    if others:
        rest = [image for image in images if image.other]
        taken = list(told_apart(taken + rest, source if source.is_dir() else source.parent))
    _check_unique(taken, source)
    return sorted(taken, key=lambda image: image.image_id)


def images_by_id(source: Path | None) -> dict[str, ImageFile]:
    """Return the images of `find_images` by their ids, and by those that version 0.1 gave them.

    Raises: as `find_images`.
    """
    images = find_images(source) if source else []
    former = {key: image for image in images if (key := former_key(image.name))}
    return former | {image.image_id: image for image in images}


def load(image_file: ImageFile) -> NDArray[np.uint8]:
    """Decode to RGB [H, W, 3] uint8.

    The EXIF orientation is applied; grey, palette and CMYK become RGB; transparency shows white;
    16 bits are scaled to 8; of an animation the first frame is taken.

    Raises:
        Refused: unreadable, damaged, truncated, not an image, or too large.
    """
    return from_bytes(image_file.read())


def from_bytes(data: bytes) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to RGB [H, W, 3] uint8, as `load` does.

    Raises:
        Refused: as `load`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return decode(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        kind = kind_of(data[:HEAD_BYTES])
        but = f", but {kind}; save it as JPEG" if kind and kind not in FORMATS else ""
        raise Refused(f"not an image in one of the formats {', '.join(FORMATS)}{but}") from None
    except _DAMAGE as error:
        raise Refused(f"damaged image: {error}") from error


def decode(image: Image.Image) -> NDArray[np.uint8]:
    """Decode an opened image to RGB [H, W, 3] uint8, as `load` does.

    Raises:
        Refused: too large, or pixels without a known white.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Refused(f"{width} x {height} is more than {MAX_PIXELS} pixels")
    image.load()
    rgb, turn = _to_rgb(image), _UPRIGHT.get(_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _in_directory(directory: Path, others_too: bool) -> list[ImageFile]:
    files = sorted(_walk(directory), key=lambda path: path.relative_to(directory).parts)
    images = [ImageFile.named(path.stem, path) for path in files if is_image(path.name)]
    others = [other for path in files if (other := other_file(path))]
    tars = [path for path in files if path.suffix.lower() == ".tar"]
    if images and tars:
        raise InputError(
            f"{directory}: holds images of its own, such as {images[0]}, and tars, such as "
            f"{tars[0]}; name a folder with one kind of them, or the tars by a pattern "
            f"such as '{tars[0].parent / '*.tar'}'"
        )
    if tars:
        return [image for tar in tars for image in in_tar(tar, cut=others_too)] + others
    rest = len(files) - len(images) - len(others)
    log.info(
        "%s: %d images, %d of other kinds, %d other files",
        *(directory, len(images), len(others), rest),
    )
    return images + others


def _walk(directory: Path) -> Iterator[Path]:
    """Yield every file that is not hidden; linked folders are entered once, so that cycles end."""
    seen = set()
    for parent, folders, names in os.walk(directory, onerror=_fail, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _fail(error: OSError) -> None:
    raise InputError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error


def _in_file(source: Path, others: bool) -> list[ImageFile]:
    match source.suffix.lower():
        case ".tar":
            return in_tar(source, cut=others)
        case ".txt":
            return _listed(source, filter(None, map(str.strip, _text(source).splitlines())))
        case ".json":
            return _in_json(source)
    if is_image(source.name):
        return [ImageFile.named(source.stem, source)]
    raise InputError(f"{source}: images are given as a directory, a .txt or .json list, or a .tar")


def _listed(source: Path, names: Iterable[str]) -> list[ImageFile]:
    return [ImageFile.named(Path(name).stem, source.parent / name) for name in names]


def _in_json(source: Path) -> list[ImageFile]:
    try:
        # Pairs, not a dict: of two equal ids a dict would silently keep one.
        content: Any = from_json(_text(source), object_pairs_hook=tuple)
    except ValueError as error:
        raise InputError(f"{source}: not JSON: {error}") from error
    pairs = isinstance(content, tuple)
    names = [pair[1] for pair in content] if pairs else content
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{source}: must be a list of paths or an object of ids and paths")
    if pairs:
        return [ImageFile.named(key, source.parent / name) for key, name in content]
    return _listed(source, names)


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read as UTF-8 text: {error}") from error


def _check_unique(images: list[ImageFile], source: Path) -> None:
    first: dict[str, ImageFile] = {}
    twice = [image for image in images if first.setdefault(image.image_id, image) is not image]
    if twice:
        shown = "\n".join(f"  {x.image_id}: {first[x.image_id]}, {x}" for x in twice[:5])
        more = f"\n  and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise InputError(
            f"{source}: every image must have its own id, but {len(twice)} repeat one:\n"
            f"{shown}{more}\nRename them, or give a JSON object of ids and paths"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise Refused("32-bit pixels have no known white; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _scaled_to_8_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits; Pillow's own conversion clips at 255 and forgets transparency."""
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise Refused("32-bit pixels have no known white; save the image with 8 or 16 bits")
    grey = np.rint(values / 257).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    """Return 1..8; an EXIF block that cannot be read says nothing, as in other viewers."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1
