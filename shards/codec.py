"""The one binary encoding of a sample: a JSON text, and a safetensors blob of its regions.

R regions, F feature size.
"""

import json
import math
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.documents import from_json
from semvlp.errors import InputError, shown
from semvlp.shards.record import TENSORS, Question, Regions, Sample, Texts

_SAFETENSORS_CODES = {
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
    np.dtype(np.int16): "I16",
}
# Tensor data starts at a multiple of this, so that a mapped file gives aligned views.
ALIGNMENT = 64
REQUIRED_ENTRIES = (
    *("key", "image_id", "width", "height", "n", "profile"),
    *("regions_bytes", "regions_crc32"),
)


def encode(sample: Sample) -> tuple[bytes, bytes]:
    """Return the two members of a sample: JSON text and safetensors blob."""
    blob = encode_regions(sample.regions)
    regions = sample.regions
    entry: dict[str, Any] = {
        "key": sample.key,
        "image_id": regions.image_id,
        **({"name": sample.name} if sample.name else {}),
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
    """Return the JSON member with other texts; every other entry stays as it is."""
    entry = decode_entry(text)
    entry["captions"] = list(texts.captions)
    entry["questions"] = [_question_entry(question) for question in texts.questions]
    return _json(entry)


def decode(text: bytes, blob: bytes | memoryview, *, check: bool = True) -> Sample:
    """Return the sample of two members; `check` compares the checksum of the blob.

    Raises:
        InputError: damaged JSON, wrong length or checksum, a required tensor that is missing.
    """
    entry = decode_entry(text)
    if check:
        check_blob(entry, blob)
    arrays: dict[str, Any] = decode_tensors(blob, entry["key"])
    regions = Regions(**_facts(entry), **arrays)
    return Sample(key=entry["key"], regions=regions, texts=texts_of(entry), name=name_of(entry))


def decode_trusted(text: bytes, arrays: dict[str, NDArray[Any]]) -> Sample:
    """Return the sample of a JSON member and of arrays, both checked before."""
    entry = decode_entry(text)
    regions = Regions.trusted(**_facts(entry), **arrays)
    return Sample(key=entry["key"], regions=regions, texts=texts_of(entry), name=name_of(entry))


def check_blob(entry: dict[str, Any], blob: bytes | memoryview) -> None:
    """Compare the blob with what the JSON member says of it.

    Raises:
        InputError: another length or checksum.
    """
    key = entry["key"]
    if len(blob) != entry["regions_bytes"]:
        raise InputError(f"{key}: {entry['regions_bytes']} bytes expected, {len(blob)} found")
    if zlib.crc32(blob) != entry["regions_crc32"]:
        raise InputError(f"{key}: checksum of the regions does not match; the data are damaged")


def decode_entry(text: bytes) -> dict[str, Any]:
    """Decode the JSON member alone.

    Raises:
        InputError: it is damaged or lacks an entry that every reader needs.
    """
    try:
        entry = from_json(text)
    except ValueError as error:
        raise InputError(f"a sample's JSON is damaged: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"a sample's JSON must be an object, got {shown(entry, 60)}")
    missing = [name for name in REQUIRED_ENTRIES if name not in entry]
    if missing:
        raise InputError(f"sample {entry.get('key')}: its JSON lacks {', '.join(missing)}")
    return entry


def name_of(entry: dict[str, Any]) -> str:
    """Return the name of the image as its file spells it; empty where that is the key."""
    return str(entry.get("name", ""))


def texts_of(entry: dict[str, Any]) -> Texts:
    """Return captions and questions of a decoded JSON member.

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
    """Return the safetensors blob: a header padded with blanks to ALIGNMENT, then the tensors."""
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
    """Return views into `blob` by field of `Regions`; unknown tensors are ignored.

    Raises:
        InputError: a header that cannot be read, or a required tensor that is missing.
    """
    return {
        span.name: np.ndarray(span.shape, span.kind, blob, span.start)
        for span in blob_layout(blob, key).spans
    }


class Span(NamedTuple):
    """The place of one tensor in a blob, in bytes."""

    name: str
    """Field of `Regions`."""
    kind: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


class Layout(NamedTuple):
    """The place of everything in a blob; blobs of as many regions share one."""

    rows: int
    """Regions."""
    spans: tuple[Span, ...]
    """The tensors in the order of TENSORS."""
    slices: tuple[slice, ...]
    """Their bytes."""
    sizes: tuple[int, ...]
    """How many those are."""
    end: int
    """Size of the blob: behind its last tensor, known or not."""


def blob_layout(blob: bytes | memoryview, key: str = "?") -> Layout:
    """Return the layout of a blob, which may have something behind it.

    Raises:
        InputError: a header that cannot be read, or a required tensor that is missing.
    """
    size = int.from_bytes(blob[:8], "little")
    try:
        layout = _layout(bytes(blob[8 : 8 + size]))
    except KeyError as error:
        raise InputError(f"{key}: the regions lack the tensor {error}") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{key}: the regions are damaged: {error}") from error
    if layout.end > len(blob):
        raise InputError(f"{key}: the regions are damaged: they end before their last tensor")
    return layout


@lru_cache(maxsize=1024)
def _layout(header: bytes) -> Layout:
    tensors = from_json(header)
    first = 8 + len(header)
    spans = tuple(_spans(tensors, first))
    ends = [info["data_offsets"][1] for name, info in tensors.items() if name != "__metadata__"]
    slices = tuple(slice(span.start, span.end) for span in spans)
    sizes = tuple(span.end - span.start for span in spans)
    return Layout(spans[0].shape[0], spans, slices, sizes, first + int(max(ends)))


def _spans(tensors: dict[str, Any], first: int) -> Iterator[Span]:
    """Return the known tensors of a decoded header; `first` is where their bytes begin."""
    count = tensors["regions"]["shape"][0]
    for name, (tensor, kind, trailing) in TENSORS.items():
        info = tensors[tensor]
        (start, end), shape = info["data_offsets"], tuple(info["shape"])
        expected = (count, *(size or shape[-1] for size in trailing))
        if info["dtype"] != _SAFETENSORS_CODES[np.dtype(kind)] or shape != expected:
            raise ValueError(f"{tensor} must be {np.dtype(kind)} {expected}, got {info}")
        if start < 0 or end - start != math.prod(shape) * np.dtype(kind).itemsize:
            raise ValueError(f"{tensor} {shape} does not fill bytes {start}..{end}")
        yield Span(name, np.dtype(kind), shape, first + start, first + end)


def _facts(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON member says of the regions."""
    return {name: entry[name] for name in ("image_id", "width", "height", "profile")}


def _json(entry: dict[str, Any]) -> bytes:
    try:
        return json.dumps(entry, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        reason = "its texts hold half a character (a surrogate without the other)"
        raise InputError(f"sample {entry['key']}: {reason}") from error


def _question_entry(question: Question) -> dict[str, Any]:
    entry: dict[str, Any] = {"question": question.question, "answers": question.answers}
    if question.question_id is not None:
        entry["question_id"] = question.question_id
    return entry
