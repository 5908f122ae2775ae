"""Archives that announce more than they are, or less: told before memory is filled."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from semvlp.archives import SMALL, gunzip, open_archive, open_tar, read_member
from semvlp.errors import InputError
from semvlp.torch_file import load_torch

MIB = 2**20
ZEROS = 300 * MIB


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail where more memory is taken inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A zip file of 300 KB whose one member has 300 MiB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(ZEROS))
    return stream.getvalue()


def test_a_zip_bomb_is_refused_by_what_it_announces(bomb: bytes) -> None:
    with at_most(MIB), pytest.raises(ValueError, match=f"unpacks to {ZEROS} bytes, and {MIB} are"):
        open_archive(io.BytesIO(bomb), most=MIB)


def test_a_zip_bomb_that_announces_little_gives_no_more(bomb: bytes) -> None:
    announced = bomb.replace(struct.pack("<I", ZEROS), struct.pack("<I", 100))
    assert announced != bomb
    archive = open_archive(io.BytesIO(announced), most=MIB)
    with at_most(8 * MIB), pytest.raises(ValueError, match="CRC"):
        read_member(archive, "x.npy")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_member_is_unpacked_by_the_methods_of_arrays_alone(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", b"x")
    archive = open_archive(stream, most=MIB)
    with pytest.raises(ValueError, match="neither by deflating nor not at all"):
        read_member(archive, "x.npy")


def test_weights_that_unpack_to_more_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    with pytest.raises(InputError, match=r"w\.pth: damaged, .* it unpacks to 4\d{5} bytes"):
        load_torch(path)


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("kind", ["stretched", "sparse", "meta"])
def test_weights_without_numbers_of_their_own_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.pth"
    made = {
        "stretched": lambda: torch.zeros(1).expand(2**40),
        "sparse": lambda: torch.sparse_coo_tensor(
            [[0], [1]], [1.0], (2**20, 2**20), check_invariants=True
        ),
        "meta": lambda: torch.zeros(2**40, device="meta"),
    }
    torch.save({"model": [{"a": torch.ones(2)}, {"b": made[kind]()}]}, path)
    with pytest.raises(InputError, match=r"w\.pth: damaged, or it holds more .* tensor"):
        load_torch(path)


def test_gzipped_text_unpacks_to_what_text_does() -> None:
    lines = b'{"image": "a", "text": "a dog", "id": 1}\n' * 100_000
    assert gunzip(gzip.compress(lines)) == lines
    packed = gzip.compress(bytes(2 * SMALL))
    with at_most(3 * SMALL), pytest.raises(ValueError, match="unpacks to more than"):
        gunzip(packed)
    with pytest.raises(ValueError, match="Compressed file ended"):
        gunzip(gzip.compress(lines)[:-100])


def test_thousands_of_headers_of_one_tar_member_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2
    path.write_bytes((name.tobuf() + b"x\0".ljust(512, b"\0")) * 5000)
    damage = pytest.raises(InputError, match=r"x\.tar: not a readable, uncompressed tar")
    with damage, open_tar(path) as tar:
        list(tar)
