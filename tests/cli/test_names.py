"""Every list of names that the command line shows: nothing can be struck, everything stands for
something.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.demo.run import SIZES
from semvlp.eval.tasks.table import TASKS
from semvlp.extract.detectors.detector import Runner
from semvlp.extract.presets import PRESETS
from semvlp.model.config import PRESETS as MODEL_PRESETS
from semvlp.names import SizePreset
from semvlp.shards.formats.table import FORMATS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "numpy", "lmdb", "webdataset", "PIL", "rich", "jinja2")
TASK_NAMES = ["vqa", "gqa", "nlvr2", "nlvr", "snli-ve", "retrieval", "refcoco", "table"]
STORE_FORMATS = ["tar", "lmdb"]
BACKENDS = ["auto", "detectron2", "torchvision", "transformers"]
COMMUNITY_FORMATS = [
    "lxmert-tsv",
    "butd-tsv",
    "butd-hdf5",
    "uniter-npz",
    "uniter-lmdb",
    "vilbert-lmdb",
    "volta-lmdb",
    "milvlg-npz",
    "vinvl-tsv",
    "mmf-npy",
    "mmf-lmdb",
]
DETECTORS = [
    "torchvision:fasterrcnn_resnet50_fpn_v2",
    "torchvision:maskrcnn_resnet50_fpn_v2",
    "torchvision:fasterrcnn_resnet50_fpn",
    "torchvision:maskrcnn_resnet50_fpn",
    "torchvision:fasterrcnn_mobilenet_v3_large_fpn",
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
    "coco-r101-c4",
    "coco-r50-c4",
    "coco-r101-fpn",
    "coco-r50-fpn",
    "coco-x101-fpn",
    "butd",
    "butd-caffe",
    "milvlg-r50",
    "milvlg-r101",
    "vinvl",
    "demo",
    "untrained",
]
# Command and option -> what may be given.
CHOICES = {
    "demo --size": ["small", "full"],
    "extract --format": STORE_FORMATS,
    "extract --backend": BACKENDS,
    "extract --preset": [
        "butd_36",
        "butd_10_100",
        "maxnms_36",
        "vinvl_nms1",
        "vinvl_nms2",
        "top_100",
    ],
    "extract --device": ["auto", "cpu", "cuda", "xpu", "mps"],
    "extract --precision": ["auto", "fp32", "bf16"],
    "detector train --backend": BACKENDS,
    "shards convert --to": STORE_FORMATS,
    "shards convert --view": ["butd_36", "butd_10_100"],
    "shards import --from": [*COMMUNITY_FORMATS, "parquet"],
    "shards import --to": STORE_FORMATS,
    "shards export --to": [*COMMUNITY_FORMATS, "parquet"],
    "finetune --task": TASK_NAMES,
    "eval --task": TASK_NAMES,
    "eval --mode": ["both", "single", "two"],
    "eval --device": ["auto", "cpu", "cuda", "xpu", "mps"],
    "eval --precision": ["auto", "fp32", "bf16"],
    "ask --mode": ["both", "single", "two"],
    "ask --device": ["auto", "cpu", "cuda", "xpu", "mps"],
    "search --device": ["auto", "cpu", "cuda", "xpu", "mps"],
    "serve --device": ["auto", "cpu", "cuda", "xpu", "mps"],
    "score --task": TASK_NAMES,
    "settings command": ["pretrain", "finetune", "extract", "detector"],
    "completion shell": ["bash", "zsh", "fish"],
}


def _choices(group: click.Group, above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Command and option -> its choices, of every command however deep."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _choices(command, f"{above}{name} ")
        for param in command.params:
            if isinstance(param.type, click.Choice):
                yield f"{above}{name} {param.opts[0]}", list(param.type.choices)


def test_every_choice_of_every_command() -> None:
    assert dict(_choices(cli)) == CHOICES


def test_every_detector_is_listed(capsys: pytest.CaptureFixture) -> None:
    assert run(cli, "semvlp", ["detector", "list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == DETECTORS


def test_every_name_stands_for_something() -> None:
    """The tables that say what, in the rooms, have these names and no others."""
    assert list(TASKS) == TASK_NAMES
    assert list(SIZES) == CHOICES["demo --size"]
    assert list(PRESETS) == CHOICES["extract --preset"]
    assert set(FORMATS) == set(COMMUNITY_FORMATS)
    assert ["auto", *get_args(Runner)] == BACKENDS
    assert list(MODEL_PRESETS) == list(get_args(SizePreset)) == ["tiny", "small", "base", "large"]


def test_the_lists_are_shown_without_loading_what_they_name() -> None:
    commands = [("demo",), ("extract",), ("shards", "import"), ("finetune",), ("eval",), ("score",)]
    probe = (
        "import sys; from semvlp.cli import cli; from semvlp.commands.console import run;"
        f"assert not any([run(cli, 'semvlp', [*command, '--help']) for command in {commands!r}]);"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"
    assert "snli-ve" in out.stdout
