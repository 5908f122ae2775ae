"""One image: a file, or a member of a tar that is read in place."""

import logging
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from semvlp.archives import open_tar
from semvlp.errors import InputError
from semvlp.extract.images.kinds import HEAD_BYTES, TAKEN_SINCE_0_2, is_image, why_not_taken
from semvlp.shards.dataset.refusals import CUT
from semvlp.shards.record import former_key, key_of

log = logging.getLogger(__name__)


class Refused(Exception):
    """An image that cannot be used; the message is the one reason."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image: a file of its own, or a member of a tar."""

    image_id: str
    """Key of the image: its name, or what `key_of` makes of it."""
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
    name: str = ""
    """The file name without its extension, where that is not the key."""
    other: bool = False
    """Whether it is of a kind that is not taken, and counted as refused."""

    @classmethod
    def named(cls, name: str, path: Path, **more: Any) -> "ImageFile":
        """Make an image of any name."""
        key = key_of(name)
        return cls(key, path, name="" if key == name else name, **more)

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


def in_tar(path: Path, *, cut: bool = False) -> list[ImageFile]:
    """Return the images of an uncompressed tar, read from its headers, those of other kinds too.

    Args:
        cut: a tar that is damaged or cut short gives the images before that place, and one that
            stands for all behind it and says why.

    Raises:
        InputError: it is damaged, truncated or compressed; with `cut`, before its first member.
    """
    members: list[tarfile.TarInfo] = []
    lost: list[ImageFile] = []
    try:
        with open_tar(path) as tar:
            members.extend(member for member in tar if not member.isdir() and not member.isdev())
            _check_end(path, tar.offset)
    except InputError as error:
        size = path.stat().st_size if cut else 0
        members = [member for member in members if member.offset_data + member.size <= size]
        if not members:
            raise
        reason = str(error).removeprefix(f"{path}: ") + CUT
        lost = [ImageFile.named(path.name, path, unread=reason, other=True)]
    files = {posixpath.normpath(member.name): member for member in members if _is_plain(member)}
    images = [_member(path, member, files) for member in members if is_image(member.name)]
    others = [other for member in members if (other := _other_member(path, member))]
    rest = len(members) - len(images) - len(others)
    log.info(
        "%s: %d images, %d of other kinds, %d other members", path, len(images), len(others), rest
    )
    return images + others + lost


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _member(path: Path, member: tarfile.TarInfo, files: Mapping[str, tarfile.TarInfo]) -> ImageFile:
    """Return an image of a tar; a link has the bytes of the file in `files` that it stands for."""
    image = ImageFile.named(PurePosixPath(member.name).stem, path, member=member.name)
    if _is_plain(member):
        return replace(image, offset=member.offset_data, size=member.size)
    if not (member.islnk() or member.issym()):
        return replace(image, unread="stored with holes; pack it as a plain file")
    # A symbolic link is relative to its own folder, a hard link to the root of the tar.
    folder = posixpath.dirname(member.name) if member.issym() else ""
    target = files.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
    if target is None:
        unread = f"a link to {member.linkname}, which its tar does not hold"
        return replace(image, unread=unread)
    return replace(image, offset=target.offset_data, size=target.size)


def _other_member(path: Path, member: tarfile.TarInfo) -> ImageFile | None:
    def head() -> bytes:
        with path.open("rb") as tar:
            tar.seek(member.offset_data)
            return tar.read(min(member.size, HEAD_BYTES))

    unread = why_not_taken(member.name, head) if _is_plain(member) else ""
    if not unread:
        return None
    stem = PurePosixPath(member.name).stem
    return ImageFile.named(stem, path, member=member.name, unread=unread, other=True)


def _check_end(path: Path, offset: int) -> None:
    """Raise where `tarfile` takes a damaged header for the end; the true end is zeros."""
    with path.open("rb") as tar:
        tar.seek(offset)
        block = tar.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise InputError(f"{path}: the tar is damaged or truncated at byte {offset}; copy it again")


def other_file(path: Path) -> ImageFile | None:
    """Return a file that is an image of a kind that is not taken; None where it is no such."""

    def head() -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError:
            return b""

    # A pipe would never end.
    unread = why_not_taken(path.name, head) if path.is_file() else ""
    return ImageFile.named(path.stem, path, unread=unread, other=True) if unread else None


def told_apart(images: Sequence[ImageFile], base: Path) -> Iterator[ImageFile]:
    """Yield the images, those of other kinds by an id that no image before them has.

    A photograph and what it was made from may lie side by side: `IMG_1.jpg` and `IMG_1.heic`.

    Args:
        base: ids are made of places relative to it, so that they do not tell where it lies.
    """
    taken = {image.image_id for image in images if not image.other}
    for image in images:
        if image.other and image.image_id in taken:
            place = os.path.relpath(str(image), base)
            image = replace(image, image_id=key_of(f"./{place}"), name=place)
        taken.add(image.image_id)
        yield image


def as_begun(files: Sequence[ImageFile], begun: Collection[str]) -> list[ImageFile]:
    """Return the images by the ids of a data set that version 0.1 may have begun with them.

    Its ids had `_` for what a key must not have and no hash, and it did not count images of kinds
    that it knew nothing of: these are left out.
    """
    known = set(begun)
    if not known or any(file.image_id in known for file in files if file.name or file.other):
        return list(files)
    kept = [file for file in files if file.image_id in known or not _is_new(file)]
    if len(kept) < len(files):
        log.warning(
            "%d images of other kinds were not counted when the data set was begun, and are not "
            "now; --overwrite begins it anew with them",
            len(files) - len(kept),
        )
    former = [former_key(file.name) or file.image_id for file in kept]
    times = Counter(former)
    renamed = [
        replace(file, image_id=key) if key in known and times[key] == 1 else file
        for file, key in zip(kept, former, strict=True)
    ]
    return sorted(renamed, key=lambda file: file.image_id)


def _is_new(file: ImageFile) -> bool:
    return file.other or PurePosixPath(file.member or file.path).suffix.lower() in TAKEN_SINCE_0_2
