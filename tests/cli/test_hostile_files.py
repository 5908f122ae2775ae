"""Files and names that are made to harm: one error that names them, and nothing of them happens."""

import gzip
import io
import json
import logging
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.model import SemVLPConfig, SemVLPForTask
from semvlp.progress import Progress
from semvlp.shards.record import Sample
from semvlp.shards.writer import open_writer
from tests.shards.datasets import plan_of, sample_of, write_dataset

DEEP = "[" * 100_000
LONG = f'{{"format_version": {"9" * 5000}}}'
HOSTILE = {"deep": DEEP, "long number": LONG}
Semvlp = Callable[..., tuple[int, str]]


@pytest.fixture
def semvlp(capsys: pytest.CaptureFixture[str]) -> Semvlp:
    """Run a command; returns its exit code and what it says on stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        code = run(cli, "semvlp", list(map(str, arguments)))
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(path)
    return path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


Case = Callable[[Path, str], tuple[Path, tuple[object, ...]]]


def _manifest(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    return written(folder / "set" / "manifest.json", text), ("shards", "info", folder / "set")


def _image_list(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "list.json", text)
    return path, ("extract", path, "--detector", "demo", "--out", folder / "out")


def _detector(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "mine" / "detector.json", text)
    command = ("extract", folder / "a.png", "--detector", folder / "mine", "--out", folder / "out")
    return path, command


def _texts(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "texts.json", text)
    command = ("extract", folder / "a.png", "--detector", "demo", "--texts", path)
    return path, (*command, "--out", folder / "out")


def _annotations(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "questions.json", text)
    return path, ("score", "--task", "vqa", "--annotations", path, folder / "a.png")


def _lines(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "dev.jsonl", text)
    return path, ("score", "--task", "nlvr2", "--annotations", path, folder / "a.png")


def _checkpoint(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    path = written(folder / "run" / "config.json", text)
    (folder / "run" / "model.safetensors").touch()
    lines = written(folder / "dev.jsonl", _NLVR2)
    write_dataset(folder / "regions", plan_of(feature_size=8))
    command = ("eval", "--task", "nlvr2", "--checkpoint", folder / "run", "--annotations", lines)
    return path, (*command, "--shards", folder / "regions", "--out", folder / "out")


def _run(folder: Path, text: str) -> tuple[Path, tuple[object, ...]]:
    written(folder / "run" / "metrics.jsonl", "")
    written(folder / "run" / "config.toml", f"x = {text.removeprefix('{')}")
    return folder / "run", ("compare", folder / "run", "--out", folder / "page.html")


_NLVR2 = json.dumps(
    {
        "identifier": "dev-0-0-0",
        "sentence": "a dog",
        "label": "True",
        "left_url": "a",
        "right_url": "b",
        "synset": "dog",
        "writer": "w",
    }
)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(
    "case",
    [_manifest, _image_list, _detector, _texts, _annotations, _lines, _checkpoint, _run],
)
def test_json_that_breaks_its_reader_is_named(
    semvlp: Semvlp, image: Path, tmp_path: Path, case: Case, hostile: str
) -> None:
    path, command = case(tmp_path, HOSTILE[hostile])
    code, said = semvlp(*command)
    assert code == 3, said
    assert str(path) in said.splitlines()[-1]
    assert len(said) < 2000


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"a = {'9' * 5000}", f"{'a.' * 10**5}a = 1"])
def test_a_configuration_that_breaks_its_reader_is_named(
    semvlp: Semvlp, tmp_path: Path, text: str
) -> None:
    path = written(tmp_path / "mine.toml", text)
    code, said = semvlp("pretrain", tmp_path / "shards", "--config", path)
    assert code == 2
    assert f"{path}: not a TOML file" in said


def test_gzipped_annotations_that_unpack_to_anything_are_named(
    semvlp: Semvlp, tmp_path: Path
) -> None:
    path = tmp_path / "questions.json.gz"
    path.write_bytes(gzip.compress(bytes(2**27)))
    code, said = semvlp("score", "--task", "vqa", "--annotations", path, path)
    assert code == 3
    assert f"{path}: cannot be read" in said


def tar_of(path: Path, name: str, data: bytes = b"x", **fields: Any) -> Path:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(data))
    return path


HOLES = {
    "GNU.sparse.major": "0",
    "GNU.sparse.minor": "1",
    "GNU.sparse.map": "0,1",
    "GNU.sparse.size": str(2**40),
}
MEMBERS: dict[str, dict[str, Any]] = {
    "a link to nothing": {"type": tarfile.SYMTYPE, "linkname": "nothing", "data": b""},
    "a link to itself": {"type": tarfile.SYMTYPE, "linkname": "0001.txt", "data": b""},
    "a hard link": {"type": tarfile.LNKTYPE, "linkname": "0000.txt", "data": b""},
    "a pipe": {"type": tarfile.FIFOTYPE, "data": b""},
    "a file with a hole of a terabyte": {"pax_headers": HOLES},
    "a file that is too large": {"data": bytes(2**24 + 1)},
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_texts_in_a_tar_are_plain_files(
    semvlp: Semvlp, image: Path, tmp_path: Path, kind: str
) -> None:
    path = tar_of(tmp_path / "texts.tar", "0001.txt", **MEMBERS[kind])
    command = ("extract", image, "--detector", "demo", "--texts", path, "--out", tmp_path / "out")
    code, said = semvlp(*command)
    assert code == 3
    assert f"error: {path}, member 0001.txt: must " in said


def test_an_image_with_holes_is_one_refused_image(semvlp: Semvlp, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "images.tar", "hole.png", pax_headers=HOLES)
    out = tmp_path / "out"
    code, _ = semvlp("extract", path, "--detector", "demo", "--out", out, "--max-bad", "1")
    (refused,) = map(json.loads, (out / "refused.jsonl").read_text().splitlines())
    assert (code, refused["id"]) == (0, "hole")
    assert "stored with holes" in refused["reason"]


@pytest.mark.parametrize("kind", ["milvlg-npz", "uniter-npz"])
def test_arrays_that_unpack_to_anything_are_named(
    semvlp: Semvlp, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "npz"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(300 * 2**20))
    code, said = semvlp("shards", "import", folder, tmp_path / "s", "--from", kind)
    assert code == 3
    assert f"error: {folder}: not one image" in said
    assert "a: not an .npz file: it unpacks to 314572800 bytes" in said


@pytest.mark.parametrize("header", ["(1099511627776,)", "(4611686018427387904, 4)", "(-1,)"])
def test_an_array_that_announces_more_than_it_has_is_named(
    semvlp: Semvlp, tmp_path: Path, header: str
) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, 8), np.float32))
    old, new = b"(1, 8), }" + b" " * 20, header.encode() + b", }"
    (folder / "a.npy").write_bytes(stream.getvalue().replace(old, new.ljust(len(old))))
    np.save(folder / "a_info.npy", np.array({"bbox": np.zeros((1, 4))}), allow_pickle=True)
    code, said = semvlp("shards", "import", folder, tmp_path / "s", "--from", "mmf-npy")
    assert code == 3
    assert "a: a.npy is a damaged .npy file: " in said


SIZES = {
    "hidden_size": 10**9,
    "intermediate_size": 10**6,
    "vocab_size": 10**6,
    "max_position_embeddings": 10**6,
    "num_hidden_layers": 10**9,
    "num_labels": 10**9,
    "num_attention_heads": 0,
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("command", ["eval", "finetune"])
def test_sizes_that_would_fill_memory_are_named(
    semvlp: Semvlp, tmp_path: Path, name: str, command: str
) -> None:
    sizes = {"vocab_size": 100, "region_feature_size": 8, "intermediate_size": 16}
    config = SemVLPConfig.preset("tiny", **sizes).for_task("pair", ["False", "True"])
    SemVLPForTask(config).save_pretrained(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: SIZES[name]}))
    _, (_, *_, lines, _, regions, _, out) = _checkpoint(tmp_path, path.read_text())
    place = {"eval": "--checkpoint", "finetune": "--init"}[command]
    given = ("--annotations", lines, "--shards", regions, "--out", out)
    code, said = semvlp(command, "--task", "nlvr2", place, tmp_path / "run", *given)
    assert code == 3, said
    assert str(tmp_path / "run") in said.splitlines()[-1]


@pytest.mark.parametrize("split", ["../../x", "/tmp/x", "a/b", "x" * 300, "..", "a\0b"])
def test_a_split_stays_in_its_folder(semvlp: Semvlp, tmp_path: Path, split: str) -> None:
    _, command = _checkpoint(tmp_path, "{}")
    before = sorted(tmp_path.rglob("*"))
    code, said = semvlp(*command, "--split", split)
    if split == "..":
        # Part of a name: nlvr2_...csv.
        assert code == 3
        return
    assert code == 2
    assert "the split must be a name" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["mmf-npy", "milvlg-npz", "uniter-npz", "vilbert-lmdb"])
def test_an_image_id_stays_in_the_folder_of_an_export(
    semvlp: Semvlp, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing of ours writes such a sample.
    monkeypatch.setattr("semvlp.shards.writer.check_fits", lambda sample, plan: None)
    plan = plan_of(1)
    with open_writer(tmp_path / "s", plan, format="tar") as writer:
        regions = sample_of("../../escaped", profile=plan.profile, regions=2).regions
        writer.write(Sample(key="img-0", regions=regions))
        writer.finish()
    code, said = semvlp("shards", "export", tmp_path / "s", tmp_path / "x" / "y", "--to", kind)
    assert code == 3
    assert f"{tmp_path / 's'}: the image id '../../escaped' is no name of a file" in said
    assert not list(tmp_path.rglob("*escaped*"))


RED = "\x1b[31m"


def test_escape_codes_of_names_do_not_reach_a_terminal(semvlp: Semvlp, tmp_path: Path) -> None:
    missing = tmp_path / f"{RED}x\u202e\x9b.json"
    for command in (("extract", missing), ("shards", "info", missing), (RED,), ("-v", "compare")):
        _, said = semvlp(*command, *([missing] if command[-1] == "compare" else []))
        assert not {"\x1b", "\x9b", "\u202e"} & set(said)
    code, said = semvlp("shards", "info", missing)
    assert code == 3
    assert r"\u001b[31mx\u202e\u009b.json" in said


def test_escape_codes_of_images_do_not_reach_the_log_nor_the_result(
    semvlp: Semvlp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tar_of(tmp_path / f"{RED}images.tar", "a.png")
    command = ["extract", str(path), "--detector", "demo", "--max-bad", "1"]
    command += ["--out", str(tmp_path / f"{RED}out")]
    assert run(cli, "semvlp", command) == 0
    streams = capsys.readouterr()
    assert r"\u001b[31m" in streams.out
    assert r"\u001b[31m" in streams.err
    assert "\x1b" not in streams.out + streams.err
    assert run(cli, "semvlp", [*command, "--json"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert json.loads(out)["out"] == str(tmp_path / f"{RED}out")


def test_names_that_are_no_text_can_be_told(semvlp: Semvlp, tmp_path: Path) -> None:
    missing = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json"))
    code, said = semvlp("shards", "info", missing)
    assert code == 3
    assert r"\udcff.json" in said


def test_progress_shows_names_as_they_may_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bar = Progress(f"drawing {RED}", total=2, unit="pictures")
    bar.advance(note=f"{RED}[red]")
    assert bar.line().startswith(r"drawing \u001b[31m: 1/2 pictures")
    assert bar.line().endswith(r", \u001b[31m[red]")
