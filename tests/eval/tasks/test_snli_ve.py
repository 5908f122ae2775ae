"""SNLI-VE: three spellings of the image field, labels by name, what is dropped."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.errors import InputError
from semvlp.eval.tasks.snli_ve import IMAGE_FIELDS, SnliVe


@pytest.mark.parametrize("field", IMAGE_FIELDS)
def test_every_spelling_of_the_image_field(
    field: str, save: Callable[..., Path], make: type
) -> None:
    (example,) = SnliVe().read([save("dev.jsonl", [make.snli_ve("a#0r1e", field=field)])])
    assert example.images == ("1.jpg",)
    assert (example.text, example.target) == ("a dog.", {"neutral": 1.0})


def test_what_is_no_part_of_snli_ve_is_dropped_and_counted(
    save: Callable[..., Path], make: type, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        make.snli_ve("a"),
        make.snli_ve("b", "-"),
        make.snli_ve("vg_1"),
        make.snli_ve("c", "-"),
    ]
    with caplog.at_level(logging.INFO):
        examples = SnliVe().read([save("dev.jsonl", lines)])
    assert [e.example_id for e in examples] == ["a"]
    assert "dropped 2 pairs without a gold label and 1 of Visual Genome" in caplog.text


def test_nothing_may_be_left_of_a_file(save: Callable[..., Path], make: type) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl: must hold at least one example"):
        SnliVe().read([save("dev.jsonl", [make.snli_ve("a", "-")])])


def test_score_by_label(save: Callable[..., Path], make: type) -> None:
    lines = [make.snli_ve("a", "entailment"), make.snli_ve("b"), make.snli_ve("c")]
    examples = SnliVe().read([save("dev.jsonl", lines)])
    found = SnliVe().score(examples, {"a": "neutral", "b": "neutral", "c": "entailment"})
    assert found == pytest.approx({"accuracy": 100 / 3, "entailment": 0, "neutral": 50})


def test_real_records(real_data: Path) -> None:
    examples = SnliVe().read([real_data / "snli_ve" / "sample_data.jsonl"])
    assert len(examples) == 5
    assert all((real_data / "snli_ve" / e.images[0]).is_file() for e in examples)
    assert [next(iter(e.target)) for e in examples] == [
        "entailment",
        "neutral",
        *["entailment"] * 3,
    ]
