"""Regions and Sample: what is known of one image, and the one binary encoding of it.

R regions, F feature size. Boxes are xyxy in pixels of the original image.
"""

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError

FORMAT = "regions-shards"
FORMAT_VERSION = 1

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
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
_SAFETENSORS_NAMES = {"F16": np.float16, "F32": np.float32, "I16": np.int16}
_SAFETENSORS_CODES = {np.dtype(kind): name for name, kind in _SAFETENSORS_NAMES.items()}
# Tensor data starts at a multiple of this, so that a mapped file gives aligned views.
ALIGNMENT = 64
REQUIRED_ENTRIES = (
    *("key", "image_id", "width", "height", "n", "profile"),
    *("regions_bytes", "regions_crc32"),
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Regions:
    """One image's regions, most confident first.

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

    def __len__(self) -> int:
        return len(self.features)

    def top(self, count: int) -> "Regions":
        """The `count` most confident regions."""
        arrays = {name: getattr(self, name)[:count] for name in TENSORS}
        return Regions(
            image_id=self.image_id,
            width=self.width,
            height=self.height,
            profile=self.profile,
            **arrays,
        )


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


def make_key(image_id: str) -> str:
    """The key an image is stored under: its id where that is a legal key.

    Raises:
        InputError: the id has characters a key must not have (dots end a key in WebDataset).
    """
    if KEY_PATTERN.fullmatch(image_id):
        return image_id
    raise InputError(
        f"image id {image_id!r} cannot be a key: only letters, digits, '_' and '-', 80 at most; "
        "rename the file or give a JSON list of ids and files"
    )


def encode(sample: Sample) -> tuple[bytes, bytes]:
    """The two members of a sample: JSON text and safetensors blob."""
    blob = encode_regions(sample.regions)
    regions = sample.regions
    entry: dict[str, Any] = {
        "key": sample.key,
        "image_id": regions.image_id,
        "width": regions.width,
        "height": regions.height,
        "n": len(regions),
        "profile": regions.profile,
        "captions": list(sample.texts.captions),
        "questions": [_question_entry(question) for question in sample.texts.questions],
        "regions_bytes": len(blob),
        "regions_crc32": zlib.crc32(blob),
    }
    return _json(entry), blob


def replace_texts(text: bytes, texts: Texts) -> bytes:
    """The JSON member with other texts; every other entry stays as it is."""
    entry = decode_entry(text)
    entry["captions"] = list(texts.captions)
    entry["questions"] = [_question_entry(question) for question in texts.questions]
    return _json(entry)


def decode(text: bytes, blob: bytes | memoryview, *, check: bool = True) -> Sample:
    """The sample of two members; `check` compares the checksum of the blob.

    Raises:
        InputError: damaged JSON, wrong length or checksum, a required tensor that is missing.
    """
    entry = decode_entry(text)
    key = entry["key"]
    if len(blob) != entry["regions_bytes"]:
        raise InputError(f"{key}: {entry['regions_bytes']} bytes expected, {len(blob)} found")
    if check and zlib.crc32(blob) != entry["regions_crc32"]:
        raise InputError(f"{key}: checksum of the regions does not match; the data are damaged")
    arrays = decode_tensors(blob, key)
    regions = Regions(
        image_id=entry["image_id"],
        width=entry["width"],
        height=entry["height"],
        profile=entry["profile"],
        **arrays,
    )
    return Sample(key=key, regions=regions, texts=texts_of(entry))


def decode_entry(text: bytes) -> dict[str, Any]:
    """The JSON member alone.

    Raises:
        InputError: it is damaged or lacks an entry that every reader needs.
    """
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise InputError(f"a sample's JSON is damaged: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"a sample's JSON must be an object, got {entry!r:.60}")
    missing = [name for name in REQUIRED_ENTRIES if name not in entry]
    if missing:
        raise InputError(f"sample {entry.get('key')}: its JSON lacks {', '.join(missing)}")
    return entry


def texts_of(entry: dict[str, Any]) -> Texts:
    """Captions and questions of a decoded JSON member.

    Raises:
        InputError: a question that is not an object with the entry `question`.
    """
    try:
        questions = tuple(
            Question(
                question=question["question"],
                answers=question.get("answers", {}),
                question_id=question.get("question_id"),
            )
            for question in entry.get("questions", ())
        )
        return Texts(captions=tuple(entry.get("captions", ())), questions=questions)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"sample {entry.get('key')}: its texts are damaged: {error!r}") from error


def encode_regions(regions: Regions) -> bytes:
    """The safetensors blob: header padded with blanks to ALIGNMENT, then tensors in file order."""
    header: dict[str, Any] = {}
    parts = []
    offset = 0
    for name, (tensor, kind, _) in TENSORS.items():
        array = np.ascontiguousarray(getattr(regions, name))
        header[tensor] = {
            "dtype": _SAFETENSORS_CODES[np.dtype(kind)],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        parts.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def decode_tensors(blob: bytes | memoryview, key: str = "?") -> dict[str, NDArray[Any]]:
    """Views into `blob`, by field of `Regions`; tensors this version does not know are ignored.

    Raises:
        InputError: a header that cannot be read, or a required tensor that is missing.
    """
    try:
        size = int.from_bytes(blob[:8], "little")
        header = json.loads(bytes(blob[8 : 8 + size]))
        return {
            name: _view(blob, header[tensor], 8 + size) for name, (tensor, _, _) in TENSORS.items()
        }
    except KeyError as error:
        raise InputError(f"{key}: the regions lack the tensor {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: the regions are damaged: {error}") from error


def _is_finite(array: NDArray[Any]) -> bool:
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    # NumPy tests half floats one by one; a half is finite unless all bits of its exponent are set.
    exponents = np.ascontiguousarray(array).view(np.uint16) & np.uint16(0x7C00)
    return not exponents.size or bool(exponents.max() < 0x7C00)


def _view(blob: bytes | memoryview, info: dict[str, Any], data_start: int) -> NDArray[Any]:
    start, end = info["data_offsets"]
    kind = np.dtype(_SAFETENSORS_NAMES[info["dtype"]])
    array = np.frombuffer(
        blob, kind, count=(end - start) // kind.itemsize, offset=data_start + start
    )
    return array.reshape(info["shape"])


def _json(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, allow_nan=False, ensure_ascii=False).encode()


def _question_entry(question: Question) -> dict[str, Any]:
    entry: dict[str, Any] = {"question": question.question, "answers": question.answers}
    if question.question_id is not None:
        entry["question_id"] = question.question_id
    return entry
