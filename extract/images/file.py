"""One image: a file, or a member of a tar that is read in place."""

import logging
import posixpath
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from semvlp.archives import open_tar
from semvlp.errors import InputError
from semvlp.shards.record import make_key

log = logging.getLogger(__name__)

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


class Refused(Exception):
    """An image that cannot be used; the message is the one reason."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image: a file of its own, or a member of a tar."""

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
    unread: str = ""
    """Why there are no bytes to be read; empty where there are."""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            Refused: the file is missing, unreadable or empty.
        """
        if self.unread:
            raise Refused(self.unread)
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


def in_tar(path: Path) -> list[ImageFile]:
    """Return the images of an uncompressed tar, read from its headers.

    Raises:
        InputError: it is damaged, truncated or compressed.
    """
    with open_tar(path) as tar:
        members = [member for member in tar if not member.isdir() and not member.isdev()]
        _check_end(path, tar.offset)
    files = {posixpath.normpath(member.name): member for member in members if _is_plain(member)}
    images = [_member(path, member, files) for member in members if is_image(member.name)]
    log.info("%s: %d images, %d other members", path, len(images), len(members) - len(images))
    return images


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _member(path: Path, member: tarfile.TarInfo, files: Mapping[str, tarfile.TarInfo]) -> ImageFile:
    """Return an image of a tar; a link has the bytes of the file in `files` that it stands for."""
    name, key = member.name, image_id(member.name)
    if _is_plain(member):
        return ImageFile(key, path, name, member.offset_data, member.size)
    if not (member.islnk() or member.issym()):
        return ImageFile(key, path, name, unread="stored with holes; pack it as a plain file")
    # A symbolic link is relative to its own folder, a hard link to the root of the tar.
    folder = posixpath.dirname(name) if member.issym() else ""
    target = files.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
    if target is None:
        unread = f"a link to {member.linkname}, which its tar does not hold"
        return ImageFile(key, path, name, unread=unread)
    return ImageFile(key, path, name, target.offset_data, target.size)


def _check_end(path: Path, offset: int) -> None:
    """Raise where `tarfile` takes a damaged header for the end; the true end is zeros."""
    with path.open("rb") as tar:
        tar.seek(offset)
        block = tar.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise InputError(f"{path}: the tar is damaged or truncated at byte {offset}; copy it again")


def is_image(name: str) -> bool:
    """Tell by its extension whether a file is an image; hidden files are none."""
    hidden = PurePosixPath(name).name.startswith(".")
    return not hidden and PurePosixPath(name).suffix.lower() in EXTENSIONS


def image_id(name: str) -> str:
    """Return the id of an image whose file or member has this name."""
    return make_key(_ILLEGAL.sub("_", PurePosixPath(name).stem))
