"""Writing: a plan decides the bytes, and a kill at any step loses nothing that was committed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.names import StoreFormat, StoreKind
from semvlp.shards.maintenance.convert import join
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store
from semvlp.shards.stores.tar_file import scan
from semvlp.shards.writer import open_writer
from tests.shards.datasets import contents, plan_of, sample_of, write_dataset


def test_files_of_a_finished_data_set(tmp_path: Path) -> None:
    write_dataset(tmp_path, refused=["img-1"])
    shards = [f"shard-00000{n}.{kind}" for n in range(3) for kind in ("idx", "json", "tar")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["index.safetensors", "manifest.json", "plan.json", "refused.jsonl", *shards]
    )
    line = {"id": "img-1", "file": "img-1.jpg", "reason": "cannot be decoded"}
    assert json.loads((tmp_path / "refused.jsonl").read_text()) == line


def test_an_lmdb_data_set_is_one_file_beside_the_manifest(tmp_path: Path) -> None:
    write_dataset(tmp_path, format="lmdb")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["manifest.json", "plan.json", "refused.jsonl", "regions.lmdb"]


def test_resume_goes_on_where_it_stopped(tmp_path: Path, format: StoreFormat) -> None:
    with open_writer(tmp_path / "a", plan_of(), format=format) as writer:
        assert writer.pending == [f"img-{n}" for n in range(5)]
        writer.write(sample_of("img-0"))
        writer.refuse("img-1", "img-1.jpg", "cannot be decoded")
        writer.write(sample_of("img-2"))
    with open_writer(tmp_path / "a", plan_of(), format=format) as writer:
        assert writer.pending == ["img-3", "img-4"]
        assert [refusal.image_id for refusal in writer.refused] == ["img-1"]
    manifest = write_dataset(tmp_path / "a", format=format)
    expected = write_dataset(tmp_path / "b", format=format, refused=["img-1"])
    assert manifest.counts == expected.counts
    assert manifest.refused == expected.refused
    assert verify(tmp_path / "a") == []
    if format == "tar":
        assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_finished_data_set_is_left_as_it_is(tmp_path: Path, format: StoreFormat) -> None:
    manifest = write_dataset(tmp_path, format=format)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with open_writer(tmp_path, plan_of(), format=format) as writer:
        assert writer.pending == []
        assert writer.finish() == manifest
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_lost_shard_is_written_again(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "shard-000001.tar").unlink()
    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        assert writer.pending == ["img-2", "img-3"]
        with pytest.raises(InputError, match="not finished"):
            open_store(tmp_path)
    write_dataset(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("cut", [1, 600, 2000])
def test_a_torn_part_is_cut_to_its_last_good_sample(tmp_path: Path, cut: int) -> None:
    plan = plan_of(samples_per_shard=5)
    with open_writer(tmp_path / "a", plan, format="tar") as writer:
        for image_id in ("img-0", "img-1", "img-2"):
            writer.write(sample_of(image_id))
    part = tmp_path / "a" / ".part" / "shard-000000.tar"
    os.truncate(part, part.stat().st_size - cut)
    with open_writer(tmp_path / "a", plan, format="tar") as writer:
        assert writer.pending[0] in ("img-1", "img-2")
    write_dataset(tmp_path / "a", plan)
    write_dataset(tmp_path / "b", plan)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_file_whose_name_is_no_utf_8_can_be_refused(tmp_path: Path, format: StoreFormat) -> None:
    with open_writer(tmp_path, plan_of(), format=format) as writer:
        writer.refuse("img-1", os.fsdecode(b"bad\xff.png"), os.fsdecode(b"no image: \xfe\xfd"))
    (refusal,) = write_dataset(tmp_path, format=format).refused
    assert (refusal.file, refusal.reason) == ("bad?.png", "no image: ??")
    assert json.loads((tmp_path / "refused.jsonl").read_text())["file"] == "bad?.png"
    assert verify(tmp_path) == []


def test_a_torn_line_of_refusals_is_cut_off(tmp_path: Path) -> None:
    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        writer.refuse("img-0", "img-0.jpg", "too small")
    with (tmp_path / "refused.jsonl").open("a") as file:
        file.write('{"id": "img-1", "fi')
    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        assert writer.pending == ["img-1", "img-2", "img-3", "img-4"]
    assert write_dataset(tmp_path).counts["errors"] == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from semvlp.shards.stores import lmdb_writer
from semvlp.shards.maintenance.convert import convert, join
from semvlp.shards.maintenance.verify import verify

source, work, format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
lmdb_writer.SAMPLES_PER_TRANSACTION = lmdb_writer.TEXTS_PER_TRANSACTION = 2

def run(out, kill_at):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = kill_at
    def counted(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    # Syncing matters to a power cut, not to a kill, and would take most of the time.
    os.fsync = os.fdatasync = counted(lambda descriptor: None)
    os.replace, os.unlink = counted(os.replace), counted(os.unlink)
    lmdb_writer.put_all = counted(lmdb_writer.put_all)
    if format == "reference":
        join(source, [work / "texts.jsonl"], out, refer=True)
    else:
        convert(source, out, to=format)
    os._exit(0)

step = 0
while True:
    step += 1
    out = work / f"killed-{step}"
    status = run(out, step)
    if status == 0:
        break
    assert status == signal.SIGKILL, status
    part = out / ".part" / "shard-000001.tar"
    if part.exists():
        os.truncate(part, part.stat().st_size * (step % 5) // 4)
    assert run(out, 0) == 0
print(step - 1)
"""


@pytest.mark.parametrize("format", get_args(StoreKind))
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, format: StoreKind) -> None:
    plan, refused = plan_of(4), ["img-1"]
    write_dataset(tmp_path / "source", plan, refused=refused)
    if format == "reference":
        texts = tmp_path / "texts.jsonl"
        texts.write_text('{"image_id": "img-2", "captions": ["another"]}\n')
        expected = join(tmp_path / "source", [texts], tmp_path / "expected", refer=True).manifest
    else:
        expected = write_dataset(tmp_path / "expected", plan, format=format, refused=refused)
    command = [sys.executable, "-c", KILLED, tmp_path / "source", tmp_path, format]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > (30 if format == "tar" else 10)
    for step in range(1, steps + 1):
        out = tmp_path / f"killed-{step}"
        if format == "tar":
            assert contents(out) == contents(tmp_path / "expected"), step
        assert sorted(contents(out)) == sorted(contents(tmp_path / "expected")), step
        assert verify(out) == [], step
        with open_store(out) as store, open_store(tmp_path / "expected") as whole:
            assert store.manifest.counts == expected.counts
            assert store.manifest.refused == expected.refused
            rows = range(len(whole))
            assert [store.members(row) for row in rows] == [whole.members(row) for row in rows]


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    with open_writer(tmp_path, plan_of(), format="tar") as writer:
        writer.write(sample_of("img-0"))
        with pytest.raises(ConfigError, match="in use by another process"):
            open_writer(tmp_path, plan_of(), format="tar")
        writer.write(sample_of("img-1"))
    open_writer(tmp_path, plan_of(), format="tar").close()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"count": 6}, r"image_ids had 5 entries, now 6, the first difference at 5 .*img-5"),
        ({"extractor": {"network": "test", "nms": {"iou": 0.7}}}, r"extractor\.nms\.iou was 0\.5"),
        ({"object_labels": ("cat", "dog", "house")}, r"object_labels .* difference at 2"),
        ({"samples_per_shard": 3}, "samples_per_shard was 2, now 3"),
        ({"feature_size": 4}, "feature_size was 8, now 4"),
        ({"texts_sha256": "ab"}, "was begun with other texts"),
    ],
)
def test_another_plan_is_refused_by_the_field_that_differs(
    tmp_path: Path, fields: dict[str, object], named: str
) -> None:
    open_writer(tmp_path, plan_of(), format="tar").close()
    with pytest.raises(ConfigError, match=rf"{named}.*--overwrite"):
        open_writer(tmp_path, plan_of(**fields), format="tar")


def test_another_store_is_another_plan(tmp_path: Path) -> None:
    open_writer(tmp_path, plan_of(), format="tar").close()
    with pytest.raises(ConfigError, match="store was 'tar', now 'lmdb'"):
        open_writer(tmp_path, plan_of(), format="lmdb")


def test_without_resume_earlier_work_is_refused(tmp_path: Path) -> None:
    open_writer(tmp_path, plan_of(), format="tar", resume=False).close()
    with pytest.raises(ConfigError, match="--resume"):
        open_writer(tmp_path, plan_of(), format="tar", resume=False)


def test_overwrite_removes_our_files_only(tmp_path: Path) -> None:
    write_dataset(tmp_path, refused=["img-4"])
    strangers = ("notes.txt", "shard-1.tar", "shard-000000.tar.backup")
    for name in strangers:
        (tmp_path / name).write_text("mine")
    with open_writer(tmp_path, plan_of(1), format="lmdb", overwrite=True) as writer:
        assert writer.pending == ["img-0"]
        assert writer.refused == []
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"plan.json", "refused.jsonl", ".part", *strangers}


def test_shards_without_a_plan_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "shard-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match=r"holds shard-000000\.tar but no plan\.json"):
        open_writer(tmp_path, plan_of(), format="tar")
    assert (tmp_path / "shard-000000.tar").read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["shard-000000.tar", "regions.lmdb", "manifest.json", "plan.json"])
def test_what_no_plan_or_manifest_proves_ours_is_not_removed(tmp_path: Path, name: str) -> None:
    """Somebody's web data set has tars of these names, and other programs have manifests."""
    (tmp_path / name).write_bytes(b'{"somebody": "else"}')
    with pytest.raises(ConfigError, match=f"holds {name}, but neither plan.json nor manifest.json"):
        open_writer(tmp_path, plan_of(), format="tar", overwrite=True)
    assert (tmp_path / name).read_bytes() == b'{"somebody": "else"}'


@pytest.mark.parametrize("lost", [("plan.json",), ("manifest.json",)])
def test_a_data_set_that_lost_one_of_its_papers_may_be_overwritten(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    write_dataset(tmp_path)
    for name in lost:
        (tmp_path / name).unlink()
    open_writer(tmp_path, plan_of(), format="tar", overwrite=True).close()
    assert not list(tmp_path.glob("shard-*.tar"))


def test_nothing_is_written_into_the_source_folder() -> None:
    source = Path(sys.modules[open_writer.__module__].__file__ or "").parent
    with pytest.raises(ConfigError, match="--out"):
        open_writer(source, plan_of(), format="tar")
    assert not (source / "refused.jsonl").exists()


def test_samples_that_do_not_fit_the_plan_are_refused(tmp_path: Path) -> None:
    with open_writer(tmp_path, plan_of(object_labels=("cat",)), format="tar") as writer:
        with pytest.raises(InputError, match="profile other where the data set has"):
            writer.write(sample_of("img-0", profile="other"))
        with pytest.raises(InputError, match=r"object ids must be 0\.\.0, got"):
            writer.write(sample_of("img-1", regions=40))
        with pytest.raises(ValueError, match="not in the plan"):
            writer.write(sample_of("img-9", regions=0))
    with (
        open_writer(tmp_path / "b", plan_of(feature_size=9), format="tar") as writer,
        pytest.raises(InputError, match="size 9, got 8"),
    ):
        writer.write(sample_of("img-0"))


def test_writes_out_of_order_twice_or_unfinished_are_errors(tmp_path: Path) -> None:
    with open_writer(tmp_path, plan_of(samples_per_shard=3), format="tar") as writer:
        writer.write(sample_of("img-3"))
        writer.write(sample_of("img-1"))
        with pytest.raises(ValueError, match="plan order"):
            writer.write(sample_of("img-0"))
        with pytest.raises(ValueError, match="already"):
            writer.write(sample_of("img-1"))
        with pytest.raises(ValueError, match="already"):
            writer.refuse("img-1", "img-1.jpg", "late")
        with pytest.raises(ValueError, match="3 images are neither written nor refused: img-0"):
            writer.finish()


def test_a_shard_of_refused_images_is_an_empty_archive(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, refused=["img-0", "img-1"])
    assert list(scan(tmp_path / "shard-000000.tar")) == []
    assert [shard.samples for shard in manifest.shards] == [0, 2, 1]
    with open_store(tmp_path) as store:
        assert store.sample(0).key == "img-2"


@pytest.mark.parametrize("overwrite", [False, True])
def test_refusals_of_somebody_else_are_kept(tmp_path: Path, overwrite: bool) -> None:
    """Without its last line end, which an own one would be cut to."""
    (tmp_path / "refused.jsonl").write_bytes(b'{"somebody": "else"}\n{"torn')
    with pytest.raises(ConfigError, match=r"holds refused\.jsonl"):
        open_writer(tmp_path, plan_of(), format="tar", overwrite=overwrite)
    assert (tmp_path / "refused.jsonl").read_bytes() == b'{"somebody": "else"}\n{"torn'


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_made_in_a_folder_of_somebody_else(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "shard-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(ConfigError):
        open_writer(tmp_path, plan_of(), format="tar", overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]
