"""Exactly once: killed anywhere and in any number of processes, the output is the same bytes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semvlp.errors import ConfigError
from semvlp.extract.detectors import batched
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.codec import encode
from semvlp.shards.dataset.manifest import CHECKSUM, read_manifest
from semvlp.shards.dataset.plan import WHOLE, Part, Plan
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store
from semvlp.shards.writer import open_writer

DRIVER = Path(__file__).with_name("killed_extraction.py")
IMAGES, BAD = 22, (4, 7, 13)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photographs, three of them damaged, for eight shards."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (24 + number % 2, 32, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"im{number:03d}.png")
    for number in BAD:
        (folder / f"im{number:03d}.png").write_bytes(b"no image")
    return folder


SETTINGS = ExtractSettings(
    detector="demo", device="cpu", batch_size=2, workers=1, samples_per_shard=3, max_bad=1.0
)


@pytest.fixture(scope="module", autouse=True)
def passes_of_two() -> Iterator[None]:
    """As on a GPU, and as the driver has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(batched._IMAGES_PER_PASS, "cpu", 2)
        yield


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    report = extract(images, out, SETTINGS)
    assert (report.written, report.refused) == (IMAGES - len(BAD), len(BAD))
    return out


def content(out: Path) -> Iterator[tuple[str, bytes]]:
    """Every file; the manifest without its date and its own checksum, which has the date in it."""
    for path in sorted(out.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.name == "manifest.json":
            entries = json.loads(data)
            assert entries.pop("created")
            assert entries.pop(CHECKSUM)
            data = json.dumps(entries).encode()
        yield str(path.relative_to(out)), data


def assert_same(out: Path, whole: Path) -> None:
    read_manifest(out)
    assert dict(content(out)) == dict(content(whole))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 11])
def test_every_image_belongs_to_exactly_one_part(whole: Path, size: int) -> None:
    with open_store(whole) as store:
        plan = read_manifest(whole).plan(store.image_ids)
    shards = [shard for rank in range(size) for shard in plan.shards(Part(rank, size))]
    assert sorted(shards) == list(range(plan.num_shards))


def test_parts_written_in_any_order_make_the_whole(whole: Path, tmp_path: Path) -> None:
    """Two writers of one data set, the second first; the first one finishes."""
    out = tmp_path / "out"
    with open_store(whole) as store:
        plan: Plan = read_manifest(whole).plan(store.image_ids)
        refused = {refusal.image_id: refusal for refusal in store.manifest.refused}
        open_writer(out, plan, format="tar").close()
        for rank in (1, 0):
            with open_writer(out, plan, format="tar", part=Part(rank, 2)) as writer:
                for image_id in writer.pending:
                    if image_id in refused:
                        writer.refuse(image_id, refused[image_id].file, refused[image_id].reason)
                    else:
                        writer.write(store.sample(store.index_of(image_id)))
                assert not writer.pending
    with open_writer(out, plan, format="tar", packages=("torchvision", "pillow")) as writer:
        writer.finish()
    assert_same(out, whole)


def test_one_part_has_one_writer(whole: Path, tmp_path: Path) -> None:
    with open_store(whole) as store:
        plan = read_manifest(whole).plan(store.image_ids)
    for part in (WHOLE, Part(1, 2)):
        first = open_writer(tmp_path / "out", plan, format="tar", part=part)
        with pytest.raises(ConfigError, match="in use by another process"):
            open_writer(tmp_path / "out", plan, format="tar", part=part)
        first.close()


def test_an_lmdb_has_one_writer(whole: Path, tmp_path: Path) -> None:
    with open_store(whole) as store:
        plan = read_manifest(whole).plan(store.image_ids)
    with pytest.raises(ConfigError, match="shards convert"):
        open_writer(tmp_path / "out", plan, format="lmdb", part=Part(1, 2))


def killed(images: Path, outs: Path, *, size: int, kills: int, format: str) -> list[Path]:
    """Outputs that were finished after `kills` kills in all."""
    arguments = [images, outs, size, kills, size, format]
    done = subprocess.run(
        [sys.executable, str(DRIVER), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = list(outs.iterdir())
    assert int(done.stdout.split()[0]) >= kills
    assert len(found) * 3 >= kills
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("size", "kills"), [(1, 30), (2, 30), (4, 30)])
def test_killed_at_random_points(
    images: Path, whole: Path, tmp_path: Path, size: int, kills: int
) -> None:
    for out in killed(images, tmp_path, size=size, kills=kills, format="tar"):
        assert_same(out, whole)


def samples(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """Both members of every sample by its id, in order, and the refusals."""
    with open_store(out) as store:
        found = {name: encode(store.sample(store.index_of(name))) for name in store.image_ids}
    return found | {"refused": ((out / "refused.jsonl").read_bytes(), b"")}


@pytest.mark.slow
def test_an_lmdb_killed_at_random_points_holds_the_same_samples(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    """The samples, for a page of an LMDB lies where the transactions before it put it."""
    undisturbed = tmp_path / "undisturbed"
    extract(images, undisturbed, replace(SETTINGS, format="lmdb"))
    expected = samples(undisturbed)
    assert expected == samples(whole)
    (tmp_path / "outs").mkdir()
    for out in killed(images, tmp_path / "outs", size=1, kills=12, format="lmdb"):
        assert list(samples(out)) == list(expected)
        assert samples(out) == expected
        assert verify(out) == []


@pytest.mark.slow
def test_torchrun_gives_the_same_bytes(images: Path, whole: Path, tmp_path: Path) -> None:
    """The command as a user types it; it names its output once."""
    extraction = "import sys; from semvlp.cli import main; sys.exit(main())"
    (tmp_path / "run.py").write_text(extraction)
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(tmp_path / "run.py", "extract", images, "--out", out, "--detector", "demo"),
        *("--device", "cpu", "--max-bad", "1"),
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds the regions of 19 images, 3 refused") == 1
    with open_store(out) as ours, open_store(whole) as theirs:
        assert list(ours.image_ids) == list(theirs.image_ids)
