"""VQA v2: official files, vocabulary, official scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.tasks.vqa import Vqa
from semvlp.eval.tasks.vqa_answers import normalise, vqa_score


def test_questions_and_annotations_come_in_any_order(save: Callable[..., Path], make: type) -> None:
    both = make.vqa({458752000: ["net"] * 3 + ["tennis net"] * 7})
    questions = save("questions.json", {"questions": both["questions"]})
    annotations = save("annotations.json", {"annotations": both["annotations"]})
    (example,) = Vqa().read([annotations, questions])
    assert example == Vqa().read([questions, annotations])[0]
    assert (example.example_id, example.images) == (458752000, ("458752",))
    assert example.target == {"net": 0.9, "tennis net": 1.0}


def test_a_test_split_has_no_targets(save: Callable[..., Path], make: type) -> None:
    questions = make.vqa({1000: ["a"] * 10})["questions"]
    (example,) = Vqa().read([save("questions.json", {"questions": questions})])
    assert example.target == {}


def test_files_must_belong_together(save: Callable[..., Path], make: type) -> None:
    one, other = make.vqa({1000: ["a"] * 10}), make.vqa({2000: ["a"] * 10})
    paths = [
        save("q.json", {"questions": one["questions"]}),
        save("a.json", {"annotations": other["annotations"]}),
    ]
    with pytest.raises(InputError, match=r"1 missing \(1000\) and 1 not in the annotations"):
        Vqa().read(paths)
    with pytest.raises(InputError, match="need the questions file"):
        Vqa().read(paths[1:])


@pytest.mark.parametrize(
    ("people", "score", "rule"),
    [
        (["red"], 100, "of 1 answer: right is what equals it"),
        (["red", "blue"], 100, "of 2 answers: VQA's score as if each stood for 5 people"),
        # OK-VQA asked five people and counts each twice.
        (["red", "b", "c", "d", "e"], 60, "of 5 answers: VQA's score as if each stood for 2"),
    ],
)
def test_fewer_than_ten_people(
    people: list[str], score: float, rule: str, save: Callable[..., Path], make: type
) -> None:
    examples = Vqa().read([save("both.json", make.vqa({1000: people}))])
    assert Vqa().score(examples, {1000: "Red"})["accuracy"] == score
    assert Vqa().details(examples, {})["rule"].startswith(rule)
    with pytest.raises(InputError, match="annotation 1: must hold at least one answer"):
        Vqa().read(
            [
                save(
                    "none.json",
                    {
                        **make.vqa({1000: people}),
                        "annotations": [{"question_id": 1000, "answers": []}],
                    },
                )
            ]
        )


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "a.jpg", "question": "what?", "answers": [{"answer": "red"}] * 10},
        {"qid": 7, "image_name": "a.jpg", "question": "what?", "answer": "Red"},
        {"qid": 7, "img_id": 1, "img_name": "a.jpg", "question": "what?", "answer": "red"},
        {"question_id": 7, "image": "a.jpg", "question": "what?", "answer": ["red", "red"]},
        {"question_id": 7, "img_id": "a.jpg", "sent": "what?", "label": {"red": 1}},
        {"question_id": "x", "image": "a.jpg", "question": "what?", "answer": "red"},
    ],
)
def test_lists_of_questions_as_other_sets_have_them(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([entry]))
    task = Vqa().suited_to([path], {})
    (example,) = task.read([path])
    assert (example.text, example.images) == ("what?", ("a.jpg",))
    assert example.example_id == entry.get("question_id", entry.get("qid", 1))
    assert dict(example.target) == {"red": 1}
    answers = {example.example_id: "red"}
    task.write(answers, tmp_path / "out.json")
    assert task.score([example], task.read_answers(tmp_path / "out.json"))["accuracy"] == 100


def test_lists_of_questions_and_of_annotations(tmp_path: Path, make: type) -> None:
    """VQA-CP has VQA v2's, in two lists."""
    paths = []
    for name, entries in make.vqa({1000: ["a cat"] * 10}).items():
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(entries))
    assert dict(Vqa().read(paths)[0].target) == {"a cat": 1}


def test_labels_are_frequent_normalised_main_answers(save: Callable[..., Path], make: type) -> None:
    """compute_softscore.py: at least nine questions; "the" is the empty string, as in the list
    that LXMERT publishes."""
    main = ["Yes."] * 9 + ["no"] * 8 + ["the"] * 9
    people = {n * 1000: [answer] * 10 for n, answer in enumerate(main, 1)}
    examples = Vqa().read([save("both.json", make.vqa(people))])
    assert Vqa().labels(examples) == ["", "yes"]
    assert Vqa(min_occurrences=8).labels(examples) == ["", "no", "yes"]
    assert Vqa().labels(examples[9:17]) == ["no"]


def test_score_by_answer_type_is_rounded_as_officially(
    save: Callable[..., Path], make: type
) -> None:
    people = {
        1000: ["yes"] * 10,
        2000: ["2"] * 2 + ["3"] * 8,
        3000: ["red"] * 3 + ["blue"] * 7,
    }
    kinds = {1000: "yes/no", 2000: "number", 3000: "other"}
    examples = Vqa().read([save("both.json", make.vqa(people, kinds))])
    found = Vqa().score(examples, {1000: "Yes", 2000: "two", 3000: "a red"})
    assert found == {"accuracy": 50.0, "yes/no": 0.0, "number": 60.0, "other": 90.0}
    found = Vqa().score(examples[:3], {1000: "yes", 2000: "x", 3000: "x"})
    assert found["accuracy"] == 33.33


def test_credits_are_computed_once_when_the_people_are_read(
    save: Callable[..., Path], make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = {1000: ["yes"] * 10, 1001: ["2"] * 2 + ["3"] * 8, 2000: ["a dog"] * 3 + ["cat"] * 7}
    examples = Vqa().read([save("both.json", make.vqa(people))])
    given = {1000: "yes", 1001: "two.", 2000: "The dog"}
    official = [vqa_score(given[key], answers) for key, answers in people.items()]
    assert official == [1.0, 0.6, 0.9]
    for module in ("vqa", "vqa_answers"):
        monkeypatch.setattr(f"semvlp.eval.tasks.{module}.answer_credits", None)
    accuracy = Vqa().credits(examples, given)["accuracy"]
    assert list(accuracy.values) == official
    assert len(set(accuracy.clusters)) == 2, "two questions are about one image"


def test_main_answers_of_the_real_files_score_as_the_official_evaluator(real_data: Path) -> None:
    """Numbers of vqaEval.py at a013f00 on the same files."""
    folder = real_data / "vqa_v2"
    examples = Vqa().read([folder / "questions_8977.json.gz", folder / "annotations_8977.json.gz"])
    answers = {e.example_id: e.meta["main"] for e in examples}
    assert Vqa().score(examples, answers) == {
        "accuracy": 96.61,
        "number": 96.54,
        "other": 93.43,
        "yes/no": 100.0,
    }


def test_labels_are_in_the_published_list(real_data: Path) -> None:
    """Answers that are frequent in 8,977 questions are frequent in all of them."""
    folder = real_data / "vqa_v2"
    examples = Vqa().read([folder / "questions_8977.json.gz", folder / "annotations_8977.json.gz"])
    published = json.loads((real_data / "vocab" / "vqa_trainval_label2ans.json").read_text())
    assert len(published) == 3129
    assert len(Vqa().labels(examples)) == 71
    assert set(Vqa().labels(examples)) < set(published)
    assert all(normalise(answer) == answer for answer in published)


@pytest.mark.parametrize("words", [("Yes", "No"), ("the left", "the right"), ("yes", "no")])
def test_answers_that_all_people_spell_alike_are_labels_as_they_spell_them(
    words: tuple[str, str], save: Callable[..., Path], make: type
) -> None:
    """There the official score compares letter by letter."""
    document = make.vqa({number: [words[number % 2]] * 10 for number in range(4)})
    task = Vqa()
    examples = task.read([save("both.json", document)])
    labels = task.labels(examples)
    assert set(labels) == set(words)
    answers = {e.example_id: labels[labels.index(words[n % 2])] for n, e in enumerate(examples)}
    assert task.score(examples, answers)["accuracy"] == 100


def test_one_answer_in_two_spellings_is_one_label(save: Callable[..., Path], make: type) -> None:
    people = [["Red"] * 10, ["red"] * 10, ["red."] * 10, ["red"] * 6 + ["pink"] * 4]
    task = Vqa()
    examples = task.read([save("both.json", make.vqa(dict(enumerate(people))))])
    assert task.labels(examples) == ["red"]
    assert {task.spelling(next(iter(e.target))) for e in examples} == {"red"}
