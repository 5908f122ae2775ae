"""NLVR2: pairs of images, consistency, balanced and unbalanced subsets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.eval.tasks.nlvr2 import Nlvr2


def test_example(save: Callable[..., Path], make: type) -> None:
    (example,) = Nlvr2().read([save("dev.json", [make.nlvr2("dev-850-1-2", "False")])])
    assert example.images == ("dev-850-1-img0", "dev-850-1-img1")
    assert (example.example_id, example.target) == ("dev-850-1-2", {"False": 1.0})


def test_urls_that_are_names_of_files_name_the_images(
    save: Callable[..., Path], make: type
) -> None:
    """The same picture can then be in several pairs; addresses are what the authors give."""
    urls = [("a.png", "b.v2.jpg"), ("https://x.org/a.png", "https://x.org/b.jpg")]
    lines = [
        make.nlvr2(f"dev-{number}-0-0") | {"left_url": left, "right_url": right}
        for number, (left, right) in enumerate(urls)
    ]
    local, remote = Nlvr2().read([save("dev.json", lines)])
    assert local.images == ("a", "b.v2")
    assert remote.images == ("dev-1-0-img0", "dev-1-0-img1")


@pytest.mark.parametrize("label", [True, False])
def test_labels_may_be_booleans_of_json(label: bool, save: Callable[..., Path], make: type) -> None:
    lines = [make.nlvr2("dev-1-0-0", "True"), make.nlvr2("dev-1-1-0") | {"label": label}]
    examples = Nlvr2().read([save("dev.json", lines)])
    assert [example.target for example in examples] == [{"True": 1.0}, {str(label): 1.0}]
    # The same pair with both labels is balanced, however they are written.
    assert {example.meta["subset"] for example in examples} == {
        "unbalanced" if label else "balanced"
    }


def test_unlabelled(save: Callable[..., Path], make: type) -> None:
    (example,) = Nlvr2().read([save("test.json", [make.nlvr2("test1-0-1-0", None)])])
    assert example.target == {}


def test_consistency_and_subsets(save: Callable[..., Path], make: type) -> None:
    lines = [
        make.nlvr2("dev-1-0-0", "True", "ab"),
        make.nlvr2("dev-1-1-0", "True", "ab"),
        make.nlvr2("dev-1-0-1", "True", "cd"),
        make.nlvr2("dev-1-1-1", "False", "cd"),
        make.nlvr2("dev-2-0-0", "True", "ef"),
    ]
    examples = Nlvr2().read([save("dev.json", lines)])
    found = Nlvr2().score(examples, {e.example_id: "True" for e in examples})
    assert found == pytest.approx(
        {"accuracy": 80, "consistency": 200 / 3, "balanced": 50, "unbalanced": 100}
    )


@pytest.mark.parametrize(
    ("split", "accuracy", "consistency", "balanced", "unbalanced"),
    [("dev", 0.5086, 0.0387, 2300, 3562), ("test1", 0.5107, 0.0421, 2316, 3536)],
)
def test_majority_of_the_real_files(
    real_data: Path,
    split: str,
    accuracy: float,
    consistency: float,
    balanced: int,
    unbalanced: int,
) -> None:
    """Numbers of lil-lab/nlvr nlvr2/eval/metrics.py and sizes of its balanced files."""
    examples = Nlvr2().read([real_data / "nlvr2" / f"{split}.json"])
    found = Nlvr2().score(examples, {e.example_id: "True" for e in examples})
    assert round(found["accuracy"] / 100, 4) == accuracy
    assert round(found["consistency"] / 100, 4) == consistency
    subsets = [e.meta["subset"] for e in examples]
    assert (subsets.count("balanced"), subsets.count("unbalanced")) == (balanced, unbalanced)


@pytest.mark.parametrize("subset", ["balanced", "unbalanced"])
def test_subsets_are_those_of_the_official_files(real_data: Path, subset: str) -> None:
    examples = Nlvr2().read([real_data / "nlvr2" / "dev.json"])
    lines = (real_data / "nlvr2" / f"{subset}_dev.json").read_text().splitlines()
    official = {json.loads(line)["identifier"] for line in lines}
    assert {e.example_id for e in examples if e.meta["subset"] == subset} == official
