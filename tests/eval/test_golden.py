"""Imperfect answers to the real files, against the numbers that the official scripts print."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from semvlp.eval import metrics as scores
from semvlp.eval.tasks.gqa import Gqa
from semvlp.eval.tasks.nlvr import Nlvr
from semvlp.eval.tasks.nlvr2 import Nlvr2
from semvlp.eval.tasks.snli_ve import SnliVe
from semvlp.eval.tasks.vqa import Vqa

# What an answer looks like when nobody has cleaned it.
FORMS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda text: f"the {text}.",
    lambda text: f"{text}, {text}",
    lambda text: text.replace(" ", "-"),
]


def test_vqa(real_data: Path) -> None:
    """vqaEval.py at a013f00: each question gets the answer of another person in another form."""
    folder = real_data / "vqa_v2"
    examples = Vqa().read([folder / "questions_8977.json.gz", folder / "annotations_8977.json.gz"])
    examples.sort(key=lambda example: int(example.example_id))
    answers = {
        e.example_id: FORMS[n % 5](e.meta["answers"][n % 10]) for n, e in enumerate(examples)
    }
    found = Vqa().score(examples, answers)
    assert found == {"accuracy": 58.02, "number": 61.77, "other": 55.21, "yes/no": 57.2}
    credits = [Vqa().example_score(e, answers[e.example_id]) for e in examples]
    types = scores.by_part(examples, credits)["question type"]
    assert len(types) == 65
    assert round(types["how many"].percent, 2) == 63.12
    assert round(types["what color is the"].percent, 2) == 57.83
    assert round(types["is the"].percent, 2) == 55.59


@pytest.mark.parametrize(
    ("split", "accuracy", "consistency"),
    [
        ("dev", 0.926955027212833, 0.7472745292368682),
        ("test1", 0.9253624228505813, 0.7393483709273183),
    ],
)
def test_nlvr2(real_data: Path, split: str, accuracy: float, consistency: float) -> None:
    """metrics.py and, for the subsets, compute_filtered_accuracy.py: every seventh is False."""
    examples = Nlvr2().read([real_data / "nlvr2" / f"{split}.json"])
    answers = {
        e.example_id: next(iter(e.target)) if n % 7 else "False" for n, e in enumerate(examples)
    }
    found = Nlvr2().score(examples, answers)
    assert found["accuracy"] / 100 == pytest.approx(accuracy)
    assert found["consistency"] / 100 == pytest.approx(consistency)
    if split == "dev":
        assert found["balanced"] == pytest.approx(93.0)
        assert found["unbalanced"] == pytest.approx(92.61650758001123)


@pytest.mark.parametrize(
    ("split", "accuracy", "consistency"),
    [
        ("dev", 0.9597236265588136, 0.30711610486891383),
        ("hidden", 0.9568527918781726, 0.3157894736842105),
    ],
)
def test_nlvr(real_data: Path, split: str, accuracy: float, consistency: float) -> None:
    """nlvr/metrics_images.py: every thirteenth answer is false."""
    examples = Nlvr().read([real_data / "nlvr" / split / f"{split}.json"])
    answers = {
        e.example_id: next(iter(e.target)) if n % 13 else "false" for n, e in enumerate(examples)
    }
    found = Nlvr().score(examples, answers)
    assert found["accuracy"] / 100 == pytest.approx(accuracy)
    assert found["consistency"] / 100 == pytest.approx(consistency)


@pytest.mark.parametrize("seed", range(5))
def test_gqa(seed: int, save: Callable[..., Path], make: type) -> None:
    """Random questions and answers, counted one by one as the metrics are described in eval.py."""
    chance = random.Random(seed)
    questions, choices, given = _gqa_world(chance, make)
    examples = Gqa().read([save("q.json", questions), save("val_choices.json", choices)])
    found = Gqa().score(examples, given)
    right = {key: given[key] == entry["answer"] for key, entry in questions.items()}
    balanced = [key for key, entry in questions.items() if entry["isBalanced"]]
    assert found["accuracy"] == pytest.approx(_percent([right[key] for key in balanced]))
    for kind, is_kind in (("open", "query".__eq__), ("binary", "query".__ne__)):
        of_kind = [k for k in balanced if is_kind(questions[k]["types"]["structural"])]
        assert found[kind] == pytest.approx(_percent([right[key] for key in of_kind]))
    means = []
    for key in balanced:
        others = [other for other in questions[key]["entailed"] if other != key]
        if right[key] and others:
            means.append(sum(right[other] for other in others) / len(others))
    assert found["consistency"] == pytest.approx(_percent(means))
    for name, field in (("validity", "valid"), ("plausibility", "plausible")):
        hits = []
        for key in balanced:
            common = "Common" in questions[key]["types"]["detailed"]
            group = ["color", "material", "shape"] if common else choices[key][field]
            hits.append(given[key] in group)
        assert found[name] == pytest.approx(_percent(hits))
    assert found["distribution"] == pytest.approx(_chi_square(questions, given, balanced))


def _gqa_world(chance: random.Random, make: type) -> tuple[dict[str, Any], dict[str, Any], Any]:
    answers = ["yes", "no", "red", "blue", "color"]
    keys = [f"{n:03d}" for n in range(60)]
    questions = {
        key: make.gqa(
            chance.choice(answers),
            isBalanced=chance.random() < 0.7,
            types={
                "structural": chance.choice(["query", "verify", "choose"]),
                "semantic": "attr",
                "detailed": chance.choice(["exist", "twoCommon"]),
            },
            groups={"global": chance.choice([None, "a", "b"]), "local": None},
            entailed=chance.sample(keys, chance.randrange(4)),
        )
        for key in keys
    }
    choices = {
        key: {"valid": chance.sample(answers, 3), "plausible": chance.sample(answers, 2)}
        for key in keys
    }
    return questions, choices, {key: chance.choice(answers) for key in keys}


def _percent(values: list[Any]) -> float:
    return 100 * sum(values) / len(values)


def _chi_square(
    questions: Mapping[str, Any], given: Mapping[str, str], balanced: list[str]
) -> float:
    gold: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    said: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key in balanced:
        group = questions[key]["groups"]["global"]
        if group is not None:
            gold[group][questions[key]["answer"]] += 1
            said[group][given[key]] += 1
    total = sum(sum(counts.values()) for counts in gold.values())
    weighted = sum(
        sum((said[group][answer] - n) ** 2 / n for answer, n in counts.items())
        * sum(counts.values())
        for group, counts in gold.items()
    )
    return weighted / total / 100


def test_gqa_tables_of_the_real_file(real_data: Path) -> None:
    """Every question is in one row of each table; steps and words are numbers."""
    examples = Gqa().read([real_data / "gqa_ood" / "ood_testdev_head.json"])
    tables = scores.by_part(examples, [1.0] * len(examples))
    assert list(tables) == ["structural type", "semantic type", "reasoning steps", "words"]
    for rows in tables.values():
        assert sum(len(row.values) for row in rows.values()) == len(examples)
    assert set(tables["semantic type"]) <= {"attr", "cat", "global", "obj", "rel"}
    first = examples[0]
    assert first.meta["parts"]["words"] == [f"{len(first.text.split()):2d}"]


def test_snli_ve(real_data: Path) -> None:

    examples = SnliVe().read([real_data / "snli_ve" / "sample_data.jsonl"])
    right = {e.example_id: next(iter(e.target)) for e in examples}
    assert SnliVe().score(examples, right)["accuracy"] == 100
    first = examples[0].example_id
    wrong = {**right, first: "neutral" if right[first] != "neutral" else "entailment"}
    assert SnliVe().score(examples, wrong)["accuracy"] == pytest.approx(80)
