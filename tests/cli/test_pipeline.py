"""Every command, one after another, on a small drawn world; then what each says to bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.demo.dataset.files import WorldFiles, write_world
from semvlp.demo.world.config import WorldConfig

TINY = ("--set", "model.preset=tiny", "--set", "train.batch_size=8", "--set", "train.save_every=2")
Semvlp = Callable[..., tuple[int, Any, str]]


@dataclass(frozen=True)
class Work:
    """What the commands have made."""

    root: Path
    world: WorldFiles

    @property
    def images(self) -> Path:
        return self.world.root / "images"


@pytest.fixture
def semvlp(capsys: pytest.CaptureFixture) -> Semvlp:
    """Run a command with --json; returns exit code, the object on stdout, and stderr."""

    def call(*arguments: object) -> tuple[int, Any, str]:
        code = run(cli, "semvlp", [*map(str, arguments), "--json"])
        streams = capsys.readouterr()
        return code, json.loads(streams.out), streams.err

    return call


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A world, its regions, a pre-trained and a fine-tuned checkpoint."""
    root = tmp_path_factory.mktemp("work")
    config = WorldConfig(towers=0, scatter=0, square=1, covered=0, nlvr=0, pairs=1)
    world = write_world(root / "world", scenes={"train": 12, "valid": 12}, seed=3, config=config)
    commands: list[tuple[object, ...]] = [
        ("extract", world.root / "images", "--out", root / "regions", "--detector", "demo"),
        (
            *("shards", "join", root / "regions", "--texts", world.texts("train")),
            *("--out", root / "shards", "--only-matched"),
        ),
        ("pretrain", root / "shards", "--out", root / "pretrain", "--set", "train.steps=4", *TINY),
        (
            *("finetune", "--task", "nlvr2", "--shards", root / "regions"),
            *("--init", root / "pretrain" / "last", "--out", root / "finetune-nlvr2"),
            *("--annotations", world.annotations("nlvr2", "train")[0]),
            *("--valid", world.annotations("nlvr2", "valid")[0]),
            *("--set", "train.steps=2", "--set", "train.batch_size=8"),
        ),
    ]
    for command in commands:
        assert run(cli, "semvlp", [*map(str, command), "-q"]) == 0, command
    return Work(root, world)


def test_extraction_and_join_are_whole(work: Work, semvlp: Semvlp) -> None:
    code, info, _ = semvlp("shards", "info", work.root / "regions")
    pictures = len(list(work.images.rglob("*.png")))
    assert code == 0
    assert info["counts"]["samples"] == pictures
    assert semvlp("shards", "verify", work.root / "regions")[:2] == (
        0,
        {"path": str(work.root / "regions"), "findings": []},
    )
    joined = semvlp("shards", "info", work.root / "shards")[1]
    assert joined["counts"]["samples"] < pictures


def test_preview_and_conversion(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shards = work.root / "regions"
    assert semvlp("shards", "preview", shards, "--images", work.images, "--out", page)[0] == 0
    assert "data:image/jpeg" in page.read_text()
    code, made, _ = semvlp("shards", "convert", shards, tmp_path / "lmdb", "--to", "lmdb")
    assert (code, made["counts"]["errors"]) == (0, 0)
    assert semvlp("shards", "verify", tmp_path / "lmdb")[0] == 0


def test_export_and_import_and_parity(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    tsv, back = tmp_path / "features.tsv", tmp_path / "back"
    shards = work.root / "regions"
    code, exported, _ = semvlp("shards", "export", shards, tsv, "--to", "lxmert-tsv")
    assert code == 0
    code, imported, _ = semvlp("shards", "import", tsv, back, "--from", "lxmert-tsv")
    assert (code, imported["counts"]["samples"]) == (0, exported["images"])
    assert semvlp("shards", "parity", tsv, back)[0] == 0


def test_the_run_has_what_the_contract_names(work: Work) -> None:
    run_dir = work.root / "pretrain"
    for name in ("config.toml", "metrics.jsonl", "report.html", "last/config.json"):
        assert (run_dir / name).exists(), name
    assert (run_dir / "last" / "model.safetensors").exists()
    assert (run_dir / "checkpoints" / "step-0000004").is_dir()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all({"step", "mode", "loss"} <= set(line) for line in lines)
    assert any(name.startswith("loss_") for name in lines[-1])


def test_eval_by_its_short_form_and_score(
    work: Work, semvlp: Semvlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune-nlvr2").symlink_to(work.root / "finetune-nlvr2")
    monkeypatch.chdir(tmp_path)
    code, report, _ = semvlp("eval", "--task", "nlvr2")
    assert code == 0
    assert set(report["scores"]["modes"]) == {"single", "two", "both"}
    out = tmp_path / "runs" / "eval-nlvr2"
    provenance = json.loads((out / "provenance.json").read_text())
    assert {"task", "split", "checkpoint", "mode", "versions", "date"} <= set(provenance)
    annotations = work.world.annotations("nlvr2", "valid")[0]
    predictions = Path(report["file"])
    assert predictions.suffix == ".csv"
    scored = semvlp("score", "--task", "nlvr2", "--annotations", annotations, predictions)
    assert scored[0] == 0
    assert scored[1]["accuracy"] == report["scores"]["accuracy"]


def test_compare_shows_runs_on_one_page(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    runs = (work.root / "pretrain", work.root / "finetune-nlvr2")
    assert semvlp("compare", *runs, "--out", tmp_path / "c.html")[0] == 0
    assert "finetune-nlvr2" in (tmp_path / "c.html").read_text()


def test_the_same_command_again_has_nothing_to_do(work: Work, semvlp: Semvlp) -> None:
    shards, out = work.root / "shards", work.root / "pretrain"
    before = (out / "metrics.jsonl").read_bytes()
    again = semvlp("pretrain", shards, "--out", out, "--set", "train.steps=4", *TINY)
    assert (again[0], again[1]["new_steps"]) == (0, 0)
    assert (out / "metrics.jsonl").read_bytes() == before
    code, _, said = semvlp("pretrain", shards, "--out", out, "--set", "train.steps=5", *TINY)
    assert code == 2
    assert "train.steps" in said
    assert "--overwrite" in said


def test_bad_images_are_refused_and_the_rest_is_kept(
    work: Work, semvlp: Semvlp, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    good = sorted(work.images.rglob("*.png"))[:3]
    for file in good:
        shutil.copy(file, folder / file.name)
    Image.open(good[0]).convert("CMYK").save(folder / "cmyk.jpg")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:300])
    out, counts = tmp_path / "out", {"samples": 4, "captions": 0, "questions": 0, "errors": 3}
    command = ("extract", folder, "--out", out, "--detector", "demo")
    code, error, _ = semvlp(*command)
    assert code == error["exit_code"] == 4
    lines = [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {"empty", "text", "cut"}
    assert all(line["reason"] and line["file"] for line in lines)
    assert semvlp("shards", "info", out)[1]["counts"] == counts
    assert semvlp(*command, "--max-bad", "0.5")[0] == 0


def test_a_shard_cut_short_is_named(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(work.root / "shards", shards)
    tar = shards / "shard-000000.tar"
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-5000])
    for command in (("shards", "verify", shards), ("pretrain", shards, "--out", tmp_path / "run")):
        code, error, _ = semvlp(*command)
        assert code == 3
        assert "shard-000000.tar" in error["error"]


def test_a_checkpoint_of_another_shape_is_named(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree((work.root / "pretrain" / "last").resolve(), broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "intermediate_size": 1024}))
    annotations = work.world.annotations("nlvr2", "train")[0]
    code, error, _ = semvlp(
        *("finetune", "--task", "nlvr2", "--annotations", annotations, "--init", broken),
        *("--shards", work.root / "regions", "--out", tmp_path / "run"),
    )
    assert code == 3
    assert "broken" in error["error"]


def test_a_wrong_task_for_an_annotation_file_is_named(work: Work, semvlp: Semvlp) -> None:
    annotations = work.world.annotations("snli-ve", "valid")[0]
    code, error, _ = semvlp(
        *("eval", "--task", "nlvr2", "--checkpoint", work.root / "finetune-nlvr2" / "best"),
        *("--annotations", annotations, "--shards", work.root / "regions"),
    )
    assert code == 3
    assert annotations.name in error["error"]


def test_images_that_no_shard_has_are_named(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    line = json.loads(work.world.annotations("nlvr2", "valid")[0].read_text().splitlines()[0])
    annotations = tmp_path / "other.json"
    annotations.write_text(json.dumps({**line, "left_url": "other.png"}) + "\n")
    code, error, _ = semvlp(
        *("eval", "--task", "nlvr2", "--checkpoint", work.root / "finetune-nlvr2" / "best"),
        *("--annotations", annotations, "--shards", work.root / "regions"),
        *("--out", tmp_path / "eval"),
    )
    assert code == 3
    assert "lacks 1 of 2 (other)" in error["error"]


def test_weights_that_are_not_there_are_named(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    command = ("extract", work.images, "--out", tmp_path / "shards")
    code, error, _ = semvlp(*command, "--weights", tmp_path / "missing.pth")
    assert code == 3
    assert "missing.pth" in error["error"]


def test_nothing_is_written_into_the_source_folder(work: Work, semvlp: Semvlp) -> None:
    source = Path(__file__).resolve().parents[2] / "shards"
    code, error, _ = semvlp("extract", work.images, "--detector", "demo", "--out", source)
    assert code == 2
    assert "--out" in error["error"]


def test_half_a_file_is_imported_and_told(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    """What was lost is counted in the exit code, unless as much is allowed."""
    tsv, half = tmp_path / "whole.tsv", tmp_path / "half.tsv"
    semvlp("shards", "export", work.root / "regions", tsv, "--to", "lxmert-tsv")
    data = tsv.read_bytes()
    half.write_bytes(data[: data.index(b"\n", len(data) // 40) + 200])
    command = ("shards", "import", half, tmp_path / "s", "--from", "lxmert-tsv")
    code, error, _ = semvlp(*command)
    assert code == 4
    assert "were refused and --max-bad allows 5.0%" in error["error"]
    assert (tmp_path / "s" / "refused.jsonl").read_text().count("cut short") == 1
    code, report, _ = semvlp(*command, "--max-bad", 1)
    assert code == 0
    assert report["counts"]["errors"] == 1


def test_texts_may_refer_to_the_regions(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    """What is learned from them is the same to the bit."""
    command = ("shards", "join", work.root / "regions", "--texts", work.world.texts("train"))
    assert semvlp(*command, "--refer", "--only-matched", "--out", tmp_path / "j")[0] == 0
    assert semvlp("shards", "verify", tmp_path / "j")[0] == 0
    refers, copied = (
        semvlp("shards", "info", path)[1] for path in (tmp_path / "j", work.root / "shards")
    )
    assert refers["counts"] == copied["counts"]
    assert refers["bytes"] < copied["bytes"]
    learn = ("pretrain", tmp_path / "j", "--out", tmp_path / "p", "--set", "train.steps=4", *TINY)
    assert semvlp(*learn)[0] == 0
    assert losses(tmp_path / "p") == losses(work.root / "pretrain")


def losses(run_dir: Path) -> list[tuple[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [(line["mode"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def test_texts_that_fit_no_image_are_not_joined(work: Work, semvlp: Semvlp, tmp_path: Path) -> None:
    captions = tmp_path / "captions.tsv"
    captions.write_text("a red box on a wall\thttp://example.org/1.jpg\n")
    command = ("shards", "join", work.root / "regions", "--texts", captions)
    code, error, _ = semvlp(*command, "--out", tmp_path / "j")
    assert code == 3
    assert "none of the 1 image names fits" in error["error"]
    assert not (tmp_path / "j").exists()
