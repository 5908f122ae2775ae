"""Images to work on: finding them, naming them, and decoding each in one defined way.

H height, W width in pixels, after the EXIF orientation was applied.
"""

import io
import json
import logging
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from semvlp.errors import InputError
from semvlp.shards.record import make_key

log = logging.getLogger(__name__)

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))
DECODING_VERSION = 1
"""Part of the profile of extracted regions: raise it when `load` gives other pixels."""

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
MIN_SIDE = 8
MAX_ASPECT = 50

# Only these: others of Pillow's plugins start programs (EPS) or hold no photograph.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
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
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


class Refused(Exception):
    """An image that cannot be used; the message is the one reason."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that was found: a file, or a member of a tar."""

    image_id: str
    """Name of the image: the file name without its extension, '_' for what a key must not have."""
    path: Path
    """The file, or the tar it lies in."""
    member: str = ""
    """Name inside the tar; empty for a file of its own."""
    offset: int = 0
    """First byte of the member in the tar."""
    size: int = 0
    """Bytes of the member."""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            Refused: the file is missing, unreadable or empty.
        """
        try:
            data = self._read_member() if self.member else self.path.read_bytes()
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror or error}") from error
        if not data:
            raise Refused("the file is empty")
        return data

    def _read_member(self) -> bytes:
        with self.path.open("rb") as tar:
            tar.seek(self.offset)
            return tar.read(self.size)


def find_images(source: Path) -> list[ImageFile]:
    """The images of a directory (searched recursively, sorted), a list or tars, under unique ids.

    A directory gives its image files by extension, or the images of its `.tar` files where it has
    none of its own; hidden files are left out. A list is `.txt` (a path a line) or `.json` (a list
    of paths, or an object of ids and paths), paths relative to the list. A pattern such as
    `train-*.tar` stands for all files that match. Tars are read in place.

    Raises:
        InputError: nothing found, a damaged list or tar, or several images of one id.
    """
    if source.is_dir():
        found = _in_directory(source)
    elif source.is_file():
        found = _in_file(source)
    else:
        matching = sorted(source.parent.glob(source.name))
        found = [image for path in matching for image in _in_file(path)]
    if not found:
        raise InputError(
            f"{source}: no images there; give a directory of {', '.join(sorted(EXTENSIONS))}, "
            "a .txt or .json list of files, or a .tar"
        )
    _check_unique(found, source)
    return found


def load(image_file: ImageFile) -> NDArray[np.uint8]:
    """Decode to RGB [H, W, 3] uint8.

    The EXIF orientation is applied; grey, palette and CMYK become RGB; transparency shows white;
    16 bits are scaled to 8; of an animation the first frame is taken.

    Raises:
        Refused: unreadable, damaged, truncated, not an image, too small or too large.
    """
    try:
        with Image.open(io.BytesIO(image_file.read()), formats=_FORMATS) as image:
            _check_size(*image.size)
            image.load()
            pixels = np.array(_upright(_to_rgb(image), _orientation(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise Refused(f"not an image in one of the formats {', '.join(_FORMATS)}") from None
    except _DAMAGE as error:
        raise Refused(f"damaged image: {error}") from error
    return pixels


def _in_directory(directory: Path) -> list[ImageFile]:
    files = sorted(_walk(directory), key=lambda path: path.relative_to(directory).parts)
    images = [ImageFile(_image_id(path.name), path) for path in files if _is_image(path.name)]
    tars = [path for path in files if path.suffix.lower() == ".tar"]
    if not images and tars:
        return [image for tar in tars for image in _in_tar(tar)]
    log.info("%s: %d images, %d other files", directory, len(images), len(files) - len(images))
    return images


def _walk(directory: Path) -> Iterator[Path]:
    """Every file that is not hidden; linked folders are entered once, so that cycles end."""
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


def _in_file(source: Path) -> list[ImageFile]:
    match source.suffix.lower():
        case ".tar":
            return _in_tar(source)
        case ".txt":
            return _listed(source, filter(None, map(str.strip, _text(source).splitlines())))
        case ".json":
            return _in_json(source)
    if _is_image(source.name):
        return [ImageFile(_image_id(source.name), source)]
    raise InputError(f"{source}: images are given as a directory, a .txt or .json list, or a .tar")


def _listed(source: Path, names: Iterable[str]) -> list[ImageFile]:
    return [ImageFile(_image_id(Path(name).name), source.parent / name) for name in names]


def _in_json(source: Path) -> list[ImageFile]:
    try:
        # Pairs, not a dict: of two equal ids a dict would silently keep one.
        content: Any = json.loads(_text(source), object_pairs_hook=tuple)
    except ValueError as error:
        raise InputError(f"{source}: not JSON: {error}") from error
    pairs = isinstance(content, tuple)
    names = [pair[1] for pair in content] if pairs else content
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{source}: must be a list of paths or an object of ids and paths")
    if pairs:
        return [ImageFile(make_key(key), source.parent / name) for key, name in content]
    return _listed(source, names)


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read as UTF-8 text: {error}") from error


def _in_tar(path: Path) -> list[ImageFile]:
    """The images of an uncompressed tar, read from its headers."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isreg() and not member.issparse()]
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path}: not a readable, uncompressed tar: {error}") from error
    images = [
        ImageFile(_image_id(member.name), path, member.name, member.offset_data, member.size)
        for member in members
        if _is_image(member.name)
    ]
    log.info("%s: %d images, %d other members", path, len(images), len(members) - len(images))
    return images


def _check_end(path: Path, offset: int) -> None:
    """`tarfile` takes a damaged header for the end of the archive; the true end is zeros."""
    with path.open("rb") as tar:
        tar.seek(offset)
        block = tar.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise InputError(f"{path}: the tar is damaged or truncated at byte {offset}; copy it again")


def _is_image(name: str) -> bool:
    hidden = PurePosixPath(name).name.startswith(".")
    return not hidden and PurePosixPath(name).suffix.lower() in EXTENSIONS


def _image_id(name: str) -> str:
    return make_key(_ILLEGAL.sub("_", PurePosixPath(name).stem))


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


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Refused(f"{width} x {height} is more than {MAX_PIXELS} pixels")
    if min(width, height) < MIN_SIDE:
        raise Refused(f"{width} x {height} pixels: both sides must be at least {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Refused(f"{width} x {height} pixels: one side is over {MAX_ASPECT} times the other")


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
    """Grey of 16 bits; Pillow's own conversion clips at 255."""
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise Refused("32-bit pixels have no known white; save the image with 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """1..8; an EXIF block that cannot be read says nothing, as in other viewers."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
