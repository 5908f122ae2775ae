"""Zip, gzip and tar files: a small one may announce anything, so what is read is bounded first."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from semvlp.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What zipfile raises on a file that is no zip file, or a damaged one.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_TAR_DAMAGE = (
    tarfile.TarError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    # A header that announces more than there is memory; thousands of headers for one member.
    MemoryError,
    RecursionError,
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy and PyTorch write; the others take memory by what the file says."""

MOST_RATIO, SMALL = 100, 2**26
"""Times its size that gzipped text may unpack to, and bytes that any may; real text has 3 to 30."""


def open_archive(source: Path | IO[bytes], *, most: int) -> zipfile.ZipFile:
    """Open a zip file whose members have at most `most` bytes in all.

    Raises:
        ValueError: they announce more, or it is damaged.
    """
    try:
        archive = zipfile.ZipFile(source)
    except _DAMAGE as error:
        raise ValueError(str(error)) from error
    total = sum(member.file_size for member in archive.infolist())
    if total > most:
        archive.close()
        raise ValueError(f"it unpacks to {total} bytes, and {most} are the most that is read")
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member, unpacking no more of it than it announces.

    Raises:
        ValueError: it is damaged, or packed by a method that nobody uses for arrays.
    """
    member = archive.getinfo(name)
    if member.compress_type not in METHODS:
        raise ValueError("it is packed neither by deflating nor not at all")
    try:
        with archive.open(member) as file:
            # By default all that a packed part gives is unpacked, and cut only then.
            return file.read(member.file_size)
    except _DAMAGE as error:
        raise ValueError(str(error)) from error


def gunzip(data: bytes) -> bytes:
    """Return gzipped text.

    Raises:
        ValueError: it is damaged, or would unpack to far more than text does.
    """
    with Gunzipped(io.BytesIO(data), len(data)) as file:
        return file.readall()


class Gunzipped(io.RawIOBase):
    """Gzipped text to be read from `file`, which has `size` bytes and is closed with it.

    Raises:
        ValueError: while it is read: it is damaged, or would unpack to far more than text does.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._packed, self._file = file, gzip.GzipFile(fileobj=file)
        self._most = self._left = max(SMALL, MOST_RATIO * size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            count = self._file.readinto(buffer)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(str(error)) from error
        self._left -= count
        if self._left < 0:
            raise ValueError(
                f"it unpacks to more than {self._most} bytes, {MOST_RATIO} times its size"
            )
        return count

    def close(self) -> None:
        self._packed.close()
        super().close()


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed tar to be read inside.

    Raises:
        InputError: it is damaged, truncated or compressed.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except _TAR_DAMAGE as error:
        raise InputError(
            f"{path}: not a readable, uncompressed tar: {error or type(error).__name__}"
        ) from error
