"""What people read of scores: every mode beside the others, and of many classes the commonest."""

from semvlp.eval.eval_report import SHOWN_CLASSES, readable

CLASSES = {
    f"class {n}": {"precision": 50.0, "recall": 25.0, "f1": 33.3, "count": float(n)}
    for n in range(40)
}


def test_scores_of_one_file_are_rounded_and_have_their_intervals_below() -> None:
    scores = {"task": "x", "accuracy": 65.18324, "accuracy_interval": [64.28, 66.08]}

    lines = readable({**scores, "counts": {"examples": 8977, "images": 8260}}).splitlines()

    assert [line.split() for line in lines] == [
        ["accuracy", "65.18"],
        ["95", "%", "interval", "64.3", "to", "66.1"],
        ["of", "8,977", "examples,", "8,260", "images"],
    ]


def test_of_many_classes_those_with_most_examples_are_shown_and_the_others_counted() -> None:
    lines = readable({"classes": CLASSES, "counts": {"examples": 780}}).splitlines()

    shown = [line for line in lines if line.startswith("class ")][1:]
    assert [line.split()[1] for line in shown] == [
        str(n) for n in range(39, 39 - SHOWN_CLASSES, -1)
    ]
    assert f"and {40 - SHOWN_CLASSES} more (all with --json)" in lines


def test_a_class_cannot_speak_to_the_terminal() -> None:
    text = readable({"classes": {"\x1b[2J": CLASSES["class 3"]}, "counts": {"examples": 3}})

    assert "\x1b" not in text
