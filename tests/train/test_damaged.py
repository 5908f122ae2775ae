"""Pre-training leaves damaged images out, tells of each once, and ends with exit code 4."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError, Interrupted, TooManyRefused
from semvlp.eval.files.inputs import DAMAGED_NAME, left_out_of
from semvlp.shards.batch import Batch
from semvlp.shards.maintenance.convert import convert
from semvlp.shards.open import open_store
from semvlp.shards.record import Texts
from semvlp.shards.stores.tar_file import scan
from semvlp.shards.stream.stream import Stream
from semvlp.train.config import PretrainConfig
from semvlp.train.pretrain import pretrain
from semvlp.train.run.files import read_lines, read_run
from semvlp.train.run.report import check_left_out, facts
from semvlp.train.run.state import read_state
from tests.train.conftest import SMALL
from tests.train.pretraining import losses, stop_after
from tests.train.processes import pretraining, together
from tests.train.test_ranks import check_same_curve

Config = Callable[..., PretrainConfig]
BAD_REGIONS, BAD_JSON = "image-3", "image-17"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def hurt_tar(source: Path, out: Path, images: Sequence[str] = (BAD_REGIONS, BAD_JSON)) -> Path:
    """Copy tar shards, with another bit in the regions of the first image and in other JSONs."""
    shutil.copytree(source, out)
    places = {}
    for shard in sorted(out.glob("*.tar")):
        for record in scan(shard):
            places[record.location.key] = shard, record.location
    for number, image in enumerate(images):
        shard, at = places[image]
        flip(shard, at.json_offset if number else at.regions_offset + at.regions_bytes - 1)
    return out


def hurt_lmdb(source: Path, out: Path) -> Path:
    """Convert shards, then do the same."""
    convert(source, out, to="lmdb")
    file = out / "regions.lmdb"
    for image in (BAD_REGIONS, BAD_JSON):
        text = file.read_bytes().index(b'{"key": "%s"' % image.encode())
        flip(file, text - 1 if image == BAD_REGIONS else text)
    return out


@pytest.fixture(scope="module")
def hurt(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hurt_tar(shards, tmp_path_factory.mktemp("hurt") / "shards")


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semvlp.train.pretrain.write_report", lambda run: None)


def told(batch: Batch) -> list[tuple[Any, ...]]:
    """What a batch holds, by position."""
    return [
        (
            v.position,
            v.text,
            v.sample.key,
            v.sample.texts,
            v.sample.regions.features.tobytes(),
            v.negative,
        )
        for v in batch.visits()
    ]


@pytest.mark.parametrize(
    ("damage", "visit"), [(hurt_tar, "images"), (hurt_tar, "pairs"), (hurt_lmdb, "images")]
)
def test_a_batch_is_the_undisturbed_one_without_what_is_damaged(
    shards: Path, tmp_path: Path, damage: Callable[[Path, Path], Path], visit: Any
) -> None:
    settings: dict[str, Any] = {"seed": 3, "batch_size": 6, "visit": visit}
    with open_store(shards) as whole, open_store(damage(shards, tmp_path / "hurt")) as store:
        sound = Stream([whole], **settings)
        one = Stream([store], **settings, skip_damaged=True)
        ranks = [
            Stream([store], **settings, skip_damaged=True, rank=rank, world_size=2)
            for rank in range(2)
        ]
        gone = {BAD_REGIONS, BAD_JSON}
        lost = whole.texts(whole.index_of(BAD_JSON))
        for position in range(0, 4 * len(whole), 6):
            expected = [
                (*visit, Texts() if negative == lost else negative)
                for *visit, negative in told(sound.read(position))
                if visit[2] not in gone
            ]
            batch = one.read(position)
            assert told(batch) == expected
            assert {one.image_id for one in batch.damaged} <= gone
            parts = [rank.read(position) for rank in ranks]
            assert [visit for part in parts for visit in told(part)] == expected
            assert sorted(d for part in parts for d in part.damaged) == sorted(batch.damaged)
        every = Stream([store], seed=3, batch_size=72, visit=visit)
        with pytest.raises(InputError, match=rf"({BAD_REGIONS}|{BAD_JSON}): .*shards verify"):
            every.read(0)


def test_damaged_images_are_left_out_counted_and_told_once(
    hurt: Path, small: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = pretrain([hurt], tmp_path / "run", small())
    assert (report.new_steps, report.examples, report.left_out) == (8, 24, 2)
    assert "without 2 of 24 images, which are damaged" in report.sentence()
    assert report.values()["left_out"] == 2
    lines = read_lines(tmp_path / "run" / DAMAGED_NAME)
    assert {line["id"] for line in lines} == {BAD_REGIONS, BAD_JSON}
    assert all(line["store"] == str(hurt) for line in lines)
    for line in lines:
        assert re.search(rf"shard-00000\d\.tar, offset \d+, sample {line['id']}: ", line["reason"])
        assert caplog.text.count(f"left out of training: {line['reason']}") == 1
    assert "without the texts of 1 damaged images" in caplog.text
    assert facts(read_run(tmp_path / "run"))["left out"] == "2 images, which are damaged"
    assert left_out_of(tmp_path / "run" / "last") == 2
    # The same command again has nothing to do and says it too.
    again = pretrain([hurt], tmp_path / "run", small())
    assert (again.new_steps, again.left_out) == (0, 2)
    check_left_out(report, 2 / 24)
    with pytest.raises(TooManyRefused, match=r"checkpoint .*last.* --max-bad allows 8\.0%"):
        check_left_out(report, 0.08)


def test_a_stopped_run_goes_on_without_the_same_images(
    hurt: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("train.log_every=3")
    pretrain([hurt], tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            pretrain([hurt], tmp_path / "run", config)
    # What a kill leaves: a line of a step that no checkpoint knows.
    with (tmp_path / "run" / DAMAGED_NAME).open("a") as file:
        file.write(json.dumps({"step": 7, "id": "image-1", "store": "", "reason": ""}) + "\n")
    assert pretrain([hurt], tmp_path / "run", config).left_out == 2
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    ours, theirs = ((tmp_path / run / DAMAGED_NAME).read_bytes() for run in ("run", "whole"))
    assert ours == theirs


def test_a_step_of_one_damaged_image_teaches_nothing(
    shards: Path, small: Config, tmp_path: Path
) -> None:
    with open_store(shards) as store:
        stream = Stream([store], seed=0, batch_size=1)
        first = stream.read(0).visits()[0].sample.key
    hurt = hurt_tar(shards, tmp_path / "hurt", [first])
    config = small("train.batch_size=1", "train.steps=2")
    report = pretrain([hurt], tmp_path / "run", config)
    assert (report.new_steps, report.left_out) == (2, 1)
    log = losses(tmp_path / "run")
    assert log[0][2] == 0 < log[1][2]


def test_a_disk_that_fails_ends_it(shards: Path, small: Config, tmp_path: Path) -> None:
    hurt = hurt_tar(shards, tmp_path / "hurt", [f"image-{number}" for number in range(13)])
    with pytest.raises(InputError, match=r"13 of 24 images are damaged, which is more than 50%"):
        pretrain([hurt], tmp_path / "run", small("train.save_every=1"))
    assert read_state(tmp_path / "run" / "last").step >= 1


def test_the_exit_code_tells_of_damage(
    hurt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"--set={one}" for one in (*SMALL, "train.steps=3")]
    command = ["pretrain", str(hurt), "--out", str(tmp_path), *settings]
    assert run(cli, "semvlp", command) == 4
    said = capsys.readouterr().err
    assert "of 24 images, which are damaged" in said
    assert "--max-bad allows 0.0%" in said
    assert read_state(tmp_path / "last").finished
    assert run(cli, "semvlp", [*command, "--max-bad", "0.1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_agree_on_what_is_damaged(shards: Path, tmp_path: Path, parallel: str) -> None:
    """Two ranks with one image each a step, so that each of them once has nothing to learn."""
    with open_store(shards) as store:
        first, *_, last = Stream([store], seed=0, batch_size=6).read(0).visits()
    hurt = hurt_tar(shards, tmp_path / "hurt", [first.sample.key, last.sample.key])
    few = ["model.dropout=0.0", "train.batch_size=2", "train.steps=6", "train.log_every=2"]
    runs = [tmp_path / "on-1", tmp_path / "on-2"]
    for size, out in enumerate(runs, start=1):
        job = pretraining(hurt, out, [*SMALL, *few, f"train.parallel={parallel}"])
        assert together(size, job) == [0] * size
    ours, theirs = ((out / DAMAGED_NAME).read_bytes() for out in runs)
    assert ours == theirs
    assert ours.count(b"\n") == 2
    check_same_curve(*runs)
