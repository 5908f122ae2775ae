"""Regions and Sample: what is known of one image; `codec.py` has their one binary encoding.

R regions, F feature size. Boxes are xyxy in pixels of the original image.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError

FORMAT = "regions-shards"
FORMAT_VERSION = 1
REFERENCE_VERSION = 2
"""Of a data set without regions of its own, which programs that read version 1 must not open."""

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
DERIVED_KEY = re.compile(r"[A-Za-z0-9_-]*-[0-9a-f]{10}")
"""What `key_of` makes of a name that is no key; some names look like it by themselves."""
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")
_KEPT_LETTERS = 69  # then '-' and 10 digits of a hash: 80 in all
NO_ATTRIBUTE = -1
MAX_REGIONS = 100

# Field of `Regions` -> tensor of the file, element type, trailing shape; in file order.
TENSORS: dict[str, tuple[str, type[np.generic], tuple[int | None, ...]]] = {
    "features": ("regions", np.float16, (None,)),
    "boxes": ("boxes", np.float32, (4,)),
    "proposals": ("proposals", np.float32, (4,)),
    "object_ids": ("class_ids", np.int16, ()),
    "object_conf": ("class_conf", np.float16, ()),
    "attribute_ids": ("attr_ids", np.int16, ()),
    "attribute_conf": ("attr_conf", np.float16, ()),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Regions:
    """One image's regions, most confident first; boxes that were given with it before all others.

    Raises:
        InputError: an array of another type or shape, or a value that is not finite.
    """

    image_id: str
    """Name of the image: the file name without its extension unless the data set says otherwise."""
    width: int
    """Width of the original image in pixels."""
    height: int
    """Height of the original image in pixels."""
    boxes: NDArray[np.float32]
    """[R, 4] regressed boxes of the chosen class, xyxy pixels."""
    proposals: NDArray[np.float32]
    """[R, 4] region proposals before regression, xyxy pixels."""
    features: NDArray[np.float16]
    """[R, F] region features."""
    object_ids: NDArray[np.int16]
    """[R] object class, from 0, without background."""
    object_conf: NDArray[np.float16]
    """[R] probability of that class."""
    attribute_ids: NDArray[np.int16]
    """[R] attribute class, from 0; NO_ATTRIBUTE where the detector has none."""
    attribute_conf: NDArray[np.float16]
    """[R] probability of that attribute."""
    profile: str
    """Hash of everything that shaped the numbers: network, weights, resizing, selection."""

    def __post_init__(self) -> None:
        for name, (_, kind, trailing) in TENSORS.items():
            array = getattr(self, name)
            shape = (len(self.features), *(array.shape[1:] if trailing == (None,) else trailing))
            if array.dtype != kind or array.shape != shape or array.ndim != 1 + len(trailing):
                raise InputError(
                    f"image {self.image_id}: {name} must be {np.dtype(kind)} {shape}, "
                    f"got {array.dtype} {array.shape}"
                )
            if not _is_finite(array):
                raise InputError(f"image {self.image_id}: {name} holds a NaN or an infinity")

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """Make regions of arrays that were checked before; they are not read again."""
        regions = object.__new__(cls)
        for name in _REGIONS_FIELDS:
            object.__setattr__(regions, name, values[name])
        return regions

    def __len__(self) -> int:
        return len(self.features)

    def top(self, count: int) -> "Regions":
        """Return the first `count` regions, the most confident ones."""
        arrays = {name: getattr(self, name)[:count] for name in TENSORS}
        return Regions.trusted(
            image_id=self.image_id,
            width=self.width,
            height=self.height,
            profile=self.profile,
            **arrays,
        )


_REGIONS_FIELDS = tuple(field.name for field in fields(Regions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about an image with its soft answers, each score in 0..1."""

    question: str
    answers: dict[str, float] = field(default_factory=dict)
    question_id: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts that belong to one image."""

    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image's regions and texts under a key that is unique in its data set."""

    key: str
    regions: Regions
    texts: Texts = Texts()
    name: str = ""
    """Name of the image as its file spells it, without the extension; empty where it is the key."""


def make_key(image_id: str) -> str:
    """Return the key an image is stored under: its id where that is a legal key.

    Raises:
        InputError: the id has characters a key must not have (dots end a key in WebDataset).
    """
    if KEY_PATTERN.fullmatch(image_id):
        return image_id
    raise InputError(
        f"image id {image_id!r} cannot be a key: only letters, digits, '_' and '-', 80 at most; "
        "rename the file or give a JSON list of ids and files"
    )


def key_of(name: str) -> str:
    """Return the key of an image of any name: the name itself where it is a legal key.

    Otherwise '_' stands for each illegal character, and behind it the start of a hash of the name
    in Unicode's composed form (NFC), so that different names have different keys.
    """
    if KEY_PATTERN.fullmatch(name):
        return name
    composed = unicodedata.normalize("NFC", name)
    # Bytes of a file name that are no UTF-8 are surrogates in Python.
    digest = hashlib.sha256(composed.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{_ILLEGAL.sub('_', composed)[:_KEPT_LETTERS]}-{digest}"


def former_key(name: str) -> str:
    """Return the key that version 0.1 gave a name: no hash, so that several names share one."""
    return _ILLEGAL.sub("_", name)


def _is_finite(array: NDArray[Any]) -> bool:
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    # NumPy tests half floats one by one; a half is finite unless all bits of its exponent are set.
    exponents = np.ascontiguousarray(array).view(np.uint16) & np.uint16(0x7C00)
    return not exponents.size or bool(exponents.max() < 0x7C00)
