"""NLVR: six images a line, named by the split of the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.errors import InputError
from semvlp.eval.tasks.nlvr import Nlvr


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("dev.json", "dev"),
        ("hidden.json", "hidden"),
        ("nlvr_test.json", "test"),
        ("toy.json", "toy"),
    ],
)
def test_six_images_named_by_the_file(
    name: str, prefix: str, save: Callable[..., Path], make: type
) -> None:
    examples = Nlvr().read([save(name, [make.nlvr("1572-0")])])
    assert [e.example_id for e in examples] == [f"{prefix}-1572-0-{k}.png" for k in range(6)]
    assert [e.images for e in examples] == [(f"{prefix}-1572-0-{k}",) for k in range(6)]


@pytest.mark.parametrize("label", [True, False])
def test_labels_may_be_booleans_of_json(label: bool, save: Callable[..., Path], make: type) -> None:
    examples = Nlvr().read([save("dev.json", [{**make.nlvr("1-0"), "label": label}])])
    assert examples[0].target == {str(label).lower(): 1.0}


def test_a_record_may_name_its_split(save: Callable[..., Path], make: type) -> None:
    examples = Nlvr().read([save("all.json", [{**make.nlvr("1-0"), "split": "train"}])])
    assert examples[0].example_id == "train-1-0-0.png"


def test_a_split_with_a_dash_would_break_the_official_script(
    save: Callable[..., Path], make: type
) -> None:
    with pytest.raises(InputError, match="got 'my-dev-train'"):
        Nlvr().read([save("my-dev-train.json", [make.nlvr("1-0")])])


def test_consistency_is_over_all_permutations_of_a_sentence(
    save: Callable[..., Path], make: type
) -> None:
    lines = [make.nlvr("1-0"), make.nlvr("1-1"), make.nlvr("2-0", "false")]
    examples = Nlvr().read([save("dev.json", lines)])
    answers = {e.example_id: "true" for e in examples}
    assert Nlvr().score(examples, answers) == pytest.approx(
        {"accuracy": 200 / 3, "consistency": 50}
    )
    # Pictures of a sentence, six of them one scene in other orders, are not independent.
    accuracy = Nlvr().credits(examples, answers)["accuracy"]
    assert list(accuracy.clusters) == [("dev", "1")] * 12 + [("dev", "2")] * 6
    answers["dev-1-1-5.png"] = "false"
    assert Nlvr().score(examples, answers)["consistency"] == 0


@pytest.mark.parametrize(
    ("split", "count", "accuracy", "consistency"),
    [("dev", 5934, 0.5531, 0.0637), ("hidden", 5910, 0.5543, 0.0865)],
)
def test_majority_of_the_real_files(
    real_data: Path, split: str, count: int, accuracy: float, consistency: float
) -> None:
    """Suhr et al. 2017, as lil-lab/nlvr nlvr/metrics_images.py counts."""
    folder = real_data / "nlvr" / split
    examples = Nlvr().read([folder / f"{split}.json"])
    found = Nlvr().score(examples, {e.example_id: "true" for e in examples})
    assert len(examples) == count
    assert round(found["accuracy"] / 100, 4) == accuracy
    assert round(found["consistency"] / 100, 4) == consistency
    drawn = {path.name for path in (folder / "images").rglob("*.png")}
    assert {e.example_id for e in examples} == drawn
