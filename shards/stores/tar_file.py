"""The bytes of one tar shard: plain ustar headers, two members a sample, a strict scan.

A header is a pure function of a member's name and size, so reading compares instead of parsing:
whatever differs is damage, and damage is never taken for the end of the archive.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from semvlp.errors import InputError
from semvlp.shards.codec import decode
from semvlp.shards.record import KEY_PATTERN, Sample

BLOCK = 512
END = bytes(2 * BLOCK)
JSON_SUFFIX = ".json"
REGIONS_SUFFIX = ".regions.safetensors"


class Location(NamedTuple):
    """The place of the two members of a sample in their shard, in bytes."""

    key: str
    json_offset: int
    json_bytes: int
    regions_offset: int
    regions_bytes: int

    @property
    def start(self) -> int:
        """Offset of the first header."""
        return self.json_offset - BLOCK

    @property
    def end(self) -> int:
        """Offset behind the padding of the last member."""
        return self.regions_offset + padded(self.regions_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sample found in a shard."""

    location: Location
    json_crc32: int
    sample: Sample


def padded(size: int) -> int:
    """Round `size` up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def header(name: str, size: int) -> bytes:
    """Return a ustar header of a read-only file without owner or time: POSIX.1-1988, typeflag 0."""
    start = name.encode("ascii").ljust(100, b"\0") + b"0000444\0" + 2 * b"0000000\0"
    start += b"%011o\0" % size + b"00000000000\0"
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(32 + 32 + 8 + 8 + 155 + 12)
    checksum = sum(start) + sum(b" " * 8) + sum(rest)
    return start + b"%06o\0 " % checksum + rest


def member(name: str, data: bytes | memoryview) -> bytes:
    """Return header, data and padding."""
    return b"".join((header(name, len(data)), data, bytes(-len(data) % BLOCK)))


def record_bytes(key: str, text: bytes, blob: bytes | memoryview) -> bytes:
    """Return the two members of a sample."""
    return member(key + JSON_SUFFIX, text) + member(key + REGIONS_SUFFIX, blob)


def scan(path: Path) -> Iterator[Record]:
    """Read every sample of a shard; all of each is checked, and what lies between and behind.

    Raises:
        InputError: at the first damage, with the file and the offset; so a torn file gives its
            good samples first.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while not is_end(file, offset, size, path.name):
            record = read_record(file, offset, path.name)
            yield record
            offset = record.location.end


def read_record(file: BinaryIO, offset: int, name: str) -> Record:
    """Read the sample whose first header is at `offset`.

    Raises:
        InputError: anything there differs from what the writer writes.
    """
    json_name, text = _read_member(file, offset, name)
    key = json_name.removesuffix(JSON_SUFFIX)
    regions_header = offset + BLOCK + padded(len(text))
    regions_name, blob = _read_member(file, regions_header, name)
    if json_name != key + JSON_SUFFIX or regions_name != key + REGIONS_SUFFIX:
        raise InputError(
            f"{name}, offset {offset}: members {json_name!r} and {regions_name!r} are not a sample"
        )
    try:
        sample = decode(text, blob)
    except InputError as error:
        raise InputError(f"{name}, offset {offset}: {error}") from error
    if sample.key != key:
        raise InputError(f"{name}, offset {offset}: key {sample.key!r} inside the member of {key}")
    location = Location(
        key=key,
        json_offset=offset + BLOCK,
        json_bytes=len(text),
        regions_offset=regions_header + BLOCK,
        regions_bytes=len(blob),
    )
    return Record(location=location, json_crc32=zlib.crc32(text), sample=sample)


def is_end(file: BinaryIO, offset: int, size: int, name: str) -> bool:
    """Tell whether exactly the end mark is left; zeros anywhere else are damage.

    Raises:
        InputError: nothing is left.
    """
    file.seek(offset)
    if size - offset == len(END) and file.read(len(END)) == END:
        return True
    if offset >= size:
        raise InputError(
            f"{name}, offset {offset}: the file ends without the end mark of an archive"
        )
    return False


def _read_member(file: BinaryIO, offset: int, name: str) -> tuple[str, bytes]:
    file.seek(offset)
    block = file.read(BLOCK)
    try:
        member_name = block[:100].rstrip(b"\0").decode("ascii")
        size = int(block[124:135], 8)
        matches = header(member_name, size) == block
    except ValueError:
        matches = False
    if not matches or not KEY_PATTERN.fullmatch(member_name.partition(".")[0]):
        raise InputError(
            f"{name}, offset {offset}: not the header of a member; the file is damaged"
        )
    data = file.read(size)
    padding = file.read(-size % BLOCK)
    if len(data) < size or len(padding) < -size % BLOCK:
        raise InputError(f"{name}, offset {offset}: the file ends inside {member_name}")
    if any(padding):
        raise InputError(f"{name}, offset {offset}: the padding of {member_name} is not zero")
    return member_name, data
