"""What an evaluation reads where nobody says so."""

import json
import logging
from pathlib import Path

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.eval.files.inputs import eval_inputs, split_name

FOUND = {"valid": ["/data/dev.json"], "shards": "/data/shards", "task": "nlvr2"}


@pytest.fixture
def best(tmp_path: Path) -> Path:
    step = tmp_path / "run" / "checkpoints" / "step-0000010"
    step.mkdir(parents=True)
    (tmp_path / "run" / "inputs.json").write_text(json.dumps(FOUND))
    link = tmp_path / "run" / "best"
    link.symlink_to(Path("checkpoints") / "step-0000010")
    return link


def test_the_run_says_what_it_was_validated_on(best: Path) -> None:
    found = eval_inputs(best)
    assert (found.annotations, found.shards) == ((Path("/data/dev.json"),), Path("/data/shards"))
    assert found.split == "val"
    assert eval_inputs(best.resolve()) == found


def test_what_is_given_counts(best: Path, tmp_path: Path) -> None:
    given = eval_inputs(best, annotations=[Path("test1.json")])
    assert (given.annotations, given.split) == ((Path("test1.json"),), "test1")
    assert given.shards == Path("/data/shards")
    assert eval_inputs(best, split="x").split == "x"
    elsewhere = eval_inputs(tmp_path, annotations=[Path("a.json")], shards=Path("s"))
    assert (elsewhere.shards, elsewhere.split) == (Path("s"), "a")


def test_what_nobody_says_is_asked_for(best: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --annotations and --shards"):
        eval_inputs(tmp_path / "a" / "b" / "c")
    record = tmp_path / "run" / "inputs.json"
    record.write_text(json.dumps({**FOUND, "valid": []}))
    with pytest.raises(ConfigError, match="no validation annotations; give --annotations"):
        eval_inputs(best)
    record.write_text("{")
    with pytest.raises(InputError, match=r"inputs\.json"):
        eval_inputs(best)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("v2_OpenEnded_mscoco_val2014_questions.json", "val2014"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions.json", "test-dev2015"),
        ("testdev_balanced_questions.json", "testdev"),
        ("snli_ve_dev.jsonl", "dev"),
        ("test1.json", "test1"),
        ("hidden.json.gz", "hidden"),
        ("captions_train2017.json", "train2017"),
        ("dataset_flickr30k.json", "dataset_flickr30k"),
        ("contested.json", "contested"),
    ],
)
def test_split_names(name: str, split: str) -> None:
    assert split_name(Path("somewhere/train") / name) == split


@pytest.mark.parametrize(
    "damage", [b"", b"\0\0", b"[1]", b"\xff", b'{"valid": 5, "shards": "s"}', b'{"shards": {}}']
)
def test_a_damaged_record_is_named_and_does_no_harm_where_all_is_given(
    best: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record = best.resolve().parent.parent / "inputs.json"
    record.write_bytes(damage)
    with pytest.raises(InputError, match=r"inputs\.json: must be the JSON that fine-tuning wrote"):
        eval_inputs(best, annotations=[Path("a.json")])
    with caplog.at_level(logging.WARNING):
        given = eval_inputs(best, annotations=[Path("a.json")], shards=Path("s"))
    assert (given.shards, given.train) == (Path("s"), ())
    assert str(record) in caplog.text
