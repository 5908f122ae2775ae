"""GQA: string ids, raw equality, and the metrics of eval.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.tasks.gqa import Gqa


def test_ids_that_differ_by_a_zero_are_two_questions(official: dict[str, Path]) -> None:
    examples = Gqa().read([official["gqa"]])
    assert [e.example_id for e in examples] == ["01", "1"]
    assert Gqa().score(examples, {"01": "red", "1": "red"})["accuracy"] == 50


def test_equality_is_raw(official: dict[str, Path]) -> None:
    examples = Gqa().read([official["gqa"]])
    for wrong in ("Red", "red.", " red"):
        assert Gqa().score(examples, {"01": wrong, "1": "x"})["accuracy"] == 0


def test_only_balanced_questions_count(save: Callable[..., Path], make: type) -> None:
    binary = {"types": {"structural": "verify", "detailed": "x"}}
    questions = {
        "1": make.gqa("red", groups={"global": None}),
        "2": make.gqa("yes", groups={"global": None}, **binary),
        "3": make.gqa("no", groups={"global": None}, **binary),
        "4": make.gqa("blue", isBalanced=False),
    }
    examples = Gqa().read([save("q.json", questions)])
    found = Gqa().score(examples, {"1": "red", "2": "yes", "3": "yes", "4": "x"})
    assert found == pytest.approx({"accuracy": 200 / 3, "open": 100, "binary": 50})


def test_consistency_follows_what_right_answers_entail(
    save: Callable[..., Path], make: type
) -> None:
    """Mean over right balanced questions; what a wrong answer entails does not count."""
    questions = {
        "1": make.gqa("red", entailed=["1", "3", "4"]),
        "2": make.gqa("red", entailed=["4"]),
        "3": make.gqa("yes", isBalanced=False),
        "4": make.gqa("no", isBalanced=False),
        "5": make.gqa("big", entailed=["4"]),
    }
    examples = Gqa().read([save("q.json", questions)])
    answers = {"1": "red", "2": "blue", "3": "yes", "4": "yes", "5": "big"}
    assert Gqa().score(examples, answers)["consistency"] == pytest.approx(100 * (0.5 + 0) / 2)
    all_wrong = dict.fromkeys(answers, "x")
    assert Gqa().score(examples, all_wrong)["consistency"] == 0


def test_questions_that_tell_less_are_scored_by_their_answers(
    save: Callable[..., Path], make: type, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of others hold imageId, question, answer and isBalanced alone."""
    questions = {key: make.gqa("red") for key in "123"}
    for key in "12":
        for name in ("types", "groups", "entailed"):
            del questions[key][name]
    path = save("q.json", questions)
    examples = Gqa().read([path])
    assert "2 of 3 questions, such as 1, have no types" in caplog.text
    scores = Gqa().score(examples, {"1": "red", "2": "blue", "3": "red"})
    assert scores["accuracy"] == pytest.approx(200 / 3)
    assert scores["open"] == 100
    questions["1"]["types"] = "query"
    with pytest.raises(InputError, match="question '1': 'types' must be an object"):
        Gqa().read([save("bad.json", questions)])
    del questions["1"]["types"]
    choices = {key: {"valid": ["red"], "plausible": ["red"]} for key in "123"}
    with pytest.raises(InputError, match="question '1': 'types' must be an object, got nothing"):
        Gqa().read([save("q.json", questions), save("choices.json", choices)])


def test_consistency_is_left_out_where_entailed_questions_lack(
    save: Callable[..., Path], make: type
) -> None:
    questions = {"1": make.gqa("red", entailed=["2"])}
    examples = Gqa().read([save("q.json", questions)])
    assert "consistency" not in Gqa().score(examples, {"1": "red"})


def test_choices_give_validity_and_plausibility(save: Callable[..., Path], make: type) -> None:
    common = {"structural": "query", "detailed": "twoCommon"}
    questions = save("q.json", {"1": make.gqa("red"), "2": make.gqa("color", types=common)})
    choices = save(
        "val_choices.json",
        {
            "1": {"valid": ["red", "blue"], "plausible": ["red"]},
            "2": {"valid": [], "plausible": []},
        },
    )
    examples = Gqa().read([questions, choices])
    found = Gqa().score(examples, {"1": "blue", "2": "shape"})
    assert (found["validity"], found["plausibility"]) == (100, 50)
    found = Gqa().score(examples, {"1": "red", "2": "size"})
    assert (found["validity"], found["plausibility"]) == (50, 50)


def test_choices_must_cover_balanced_questions(save: Callable[..., Path], make: type) -> None:
    paths = [
        save("q.json", {"1": make.gqa("red")}),
        save("choices.json", {"2": {"valid": [], "plausible": []}}),
    ]
    with pytest.raises(InputError, match="question '1': the choices file must hold"):
        Gqa().read(paths)
    with pytest.raises(InputError, match="only what goes beside it was given"):
        Gqa().read(paths[1:])


def test_distribution(official: dict[str, Path]) -> None:
    examples = Gqa().read([official["gqa"]])
    # Both answer red: (2 - 1)^2 / 1 + (0 - 1)^2 / 1 = 2.
    assert Gqa().score(examples, {"01": "red", "1": "red"})["distribution"] == 0.02


def test_unlabelled_questions(save: Callable[..., Path]) -> None:
    entry = {"question": "what?", "imageId": "n1", "isBalanced": True}
    (example,) = Gqa().read([save("submission_all_questions.json", {"007": entry})])
    assert (example.example_id, example.target) == ("007", {})


def test_real_questions(real_data: Path) -> None:
    paths = [real_data / "gqa_ood" / f"ood_testdev_{part}.json" for part in ("head", "tail")]
    examples = Gqa().read(paths)
    assert len(examples) == 2796
    assert examples[0].images == ("n54424",)
    published = json.loads((real_data / "vocab" / "gqa_trainval_label2ans.json").read_text())
    assert set(Gqa().labels(examples)) <= set(published)
    found = Gqa().score(examples, {e.example_id: "yes" for e in examples})
    assert found["accuracy"] == pytest.approx(100 * sum("yes" in e.target for e in examples) / 2796)


def _scene() -> dict[str, Any]:
    """A thing on the left half and one on the lower right quarter of a 200 x 100 image."""
    things = {
        "7": {"name": "wall", "x": 0, "y": 0, "w": 100, "h": 100},
        "8": {"name": "dog", "x": 100, "y": 50, "w": 100, "h": 50},
    }
    return {"n1": {"width": 200, "height": 100, "objects": things}}


@pytest.mark.parametrize(
    ("pointers", "expected"),
    [
        ({"question": {"0": "7"}}, 0.4 + 0.2),
        ({"question": {"0": "8"}, "fullAnswer": {"1": "8"}}, 2 * 0.1),
        ({"question": {}, "answer": {"0": "7"}}, 0.0),
    ],
)
def test_grounding(
    pointers: dict[str, Any], expected: float, save: Callable[..., Path], make: type
) -> None:
    """The first index of a map goes from left to right; the answer's own pointers do not count."""
    maps = [{"questionId": "1", "attention": [[0.4, 0.2], [0.3, 0.1]]}]
    attentions = save("val_attentions.json", {})
    attentions.write_text(json.dumps(maps))
    files = [
        save("q.json", {"1": make.gqa("red", annotations=pointers)}),
        save("val_sceneGraphs.json", _scene()),
        attentions,
    ]
    found = Gqa().score(Gqa().read(files), {"1": "x"})
    assert found["grounding"] == pytest.approx(100 * expected)


@pytest.mark.parametrize(
    ("attention", "scenes", "message"),
    [
        ([{"questionId": "2", "attention": [[1.0]]}], None, "must hold every balanced question"),
        ([{"questionId": "1", "attention": [[1.0]]}], {}, "must hold image 'n1'"),
        ([{"questionId": "1", "attention": [[1.0, 2.0]]}], None, "must be a square"),
        ({"1": [[1.0]]}, None, "must be a GQA attentions file"),
    ],
)
def test_grounding_needs_everything(
    attention: Any, scenes: Any, message: str, save: Callable[..., Path], make: type
) -> None:
    path = save("val_attentions.json", {})
    path.write_text(json.dumps(attention))
    files = [
        save("q.json", {"1": make.gqa("red", annotations={"question": {"0": "7"}})}),
        save("val_sceneGraphs.json", _scene() if scenes is None else scenes),
        path,
    ]
    with pytest.raises(InputError, match=message):
        Gqa().read(files)
