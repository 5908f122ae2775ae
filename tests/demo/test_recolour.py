"""Exchanged colours: the same sentence about the same things."""

import json
from pathlib import Path

import pytest
from PIL import Image

from semvlp.demo.nlvr_scenes import read_scenes, structured_rep
from semvlp.demo.recolour import EXCHANGES, exchanged, write_recoloured
from semvlp.demo.world import FAMILY, draw_lots
from semvlp.eval.tasks import load_task


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """One family with a sentence about yellow and blue."""
    (scenes,) = draw_lots("towers", {"train": FAMILY}, seed="1", seen=set()).values()
    path = tmp_path / "dev.json"
    records = [
        {
            "identifier": f"17-{m}",
            "sentence": "There is a Yellow block over a blue block.",
            "label": "true",
            "structured_rep": structured_rep(scene),
        }
        for m, scene in enumerate(scenes)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_colour_words_are_exchanged_wherever_they_stand() -> None:
    exchange = {"yellow": "blue", "blue": "black", "black": "yellow"}
    assert exchanged("A Yellow item, ablue one", exchange) == "A blue item, ablack one"
    assert len({tuple(sorted(each.items())) for each in EXCHANGES}) == 5


def test_sentence_and_scene_change_alike(annotations: Path, tmp_path: Path) -> None:
    before = [scene for _, scene in read_scenes(annotations)]
    files = write_recoloured(annotations, tmp_path / "new", copies=5, seed=0)
    sentences = set()
    for file in files:
        pairs = list(read_scenes(file))
        (sentence,) = {record["sentence"] for record, _ in pairs}
        sentences.add(sentence)
        words = sentence.split()
        upper, lower = words[3], words[-2]
        for old, (_, new) in zip(before, pairs, strict=True):
            colours = {"yellow": upper, "blue": lower}
            assert [item.color for item in new.items if item.color in colours.values()] == [
                colours[item.color] for item in old.items if item.color in colours
            ]
            assert [(i.x, i.y) for i in new.items] == [(i.x, i.y) for i in old.items]
    assert len(sentences) == 5


def test_the_task_reads_the_files_and_finds_the_pictures(annotations: Path, tmp_path: Path) -> None:
    files = write_recoloured(annotations, tmp_path / "new", copies=2, seed=0)
    examples = load_task("nlvr").read(files)
    assert len(examples) == 2 * FAMILY * 6
    for example in examples:
        assert example.target == {"true": 1.0}
        with Image.open(tmp_path / "new" / str(example.example_id)) as picture:
            assert picture.size == (400, 100)
