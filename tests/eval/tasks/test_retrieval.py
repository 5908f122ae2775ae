"""Retrieval: splits of Karpathy JSON, COCO captions, ranks and recalls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.eval.task import Rank
from semvlp.eval.tasks.retrieval import Retrieval
from semvlp.eval.tasks.retrieval_ranks import image_names, rank_answers

SPLITS = {"a.jpg": "train", "b.jpg": "restval", "c.jpg": "val", "d.jpg": "test"}


def test_splits(save: Callable[..., Path], make: type) -> None:
    path = save("k.json", make.karpathy(dict.fromkeys(SPLITS, 2), SPLITS))

    def images(split: str) -> list[str]:
        return image_names(Retrieval().read([path], split=split))

    assert image_names(Retrieval().read([path])) == ["a.jpg", "b.jpg"]
    assert images("train") == ["a.jpg", "b.jpg"]
    assert images("restval") == ["b.jpg"]
    assert images("test") == ["d.jpg"]
    with pytest.raises(InputError, match="train, restval, val, test, but not 'dev'"):
        images("dev")


def test_examples_are_captions_with_their_image(save: Callable[..., Path], make: type) -> None:
    examples = Retrieval().read(
        [save("k.json", make.karpathy({"a.jpg": 1, "b.jpg": 2}))], split="test"
    )
    assert [(e.example_id, e.text, e.images) for e in examples] == [
        (0, "caption 0", ("a.jpg",)),
        (1, "caption 1", ("b.jpg",)),
        (2, "caption 2", ("b.jpg",)),
    ]
    assert Retrieval().ids(examples) == [0, 1, 2, "a.jpg", "b.jpg"]
    assert Retrieval().labels([]).index("match") == 1


def test_real_coco_captions(real_data: Path) -> None:
    examples = Retrieval().read([real_data / "coco" / "captions.json"])
    assert len(examples) == 2441
    assert len(image_names(examples)) == 488
    assert examples[0].images == ("000000000139.jpg",)


def test_coco_captions_without_file_names(save: Callable[..., Path]) -> None:
    captions = {"annotations": [{"id": 5, "image_id": 139, "caption": "A room."}]}
    (example,) = Retrieval().read([save("captions.json", captions)])
    assert (example.example_id, example.images) == (5, ("139",))


def test_recalls_of_a_hand_made_matrix(save: Callable[..., Path], make: type) -> None:
    examples = Retrieval().read([save("k.json", make.karpathy({"a": 1, "b": 2}))], split="test")
    matrix = np.array([[0.9, 0.1], [0.8, 0.7], [0.3, 0.3]], np.float32)
    answers = rank_answers(examples, matrix)
    assert answers == {
        0: Rank(1, 0),
        1: Rank(2, 0),
        2: Rank(2, 1),
        "a": Rank(1, 0),
        "b": Rank(1, 0),
    }
    found = Retrieval().score(examples, answers)
    assert found == pytest.approx(
        {
            "ir_r1": 100 / 3,
            "ir_r5": 100,
            "ir_r10": 100,
            "tr_r1": 100,
            "tr_r5": 100,
            "tr_r10": 100,
            "r_mean": (500 + 100 / 3) / 6,
            "rsum": 500 + 100 / 3,
            "ties": 1,
        }
    )


def test_folds_are_ranked_among_themselves(
    save: Callable[..., Path], make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO 1k: a mean over folds, each ranked as if the others were not there."""
    monkeypatch.setattr("semvlp.eval.tasks.retrieval_ranks.FOLD", 2)
    captions = {"a": 1, "b": 2, "c": 1, "d": 1}
    examples = Retrieval().read([save("k.json", make.karpathy(captions))], split="test")
    matrix = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    answers = rank_answers(examples, matrix)
    folds = []
    for start, count, rows in ((0, {"a": 1, "b": 2}, [0, 1, 2]), (2, {"c": 1, "d": 1}, [3, 4])):
        part = Retrieval().read([save("f.json", make.karpathy(count))], split="test")
        inner = rank_answers(part, matrix[rows][:, start : start + 2])
        folds.append(Retrieval().score(part, inner))
    found = Retrieval().score(examples, answers)
    for name in ("ir_r1", "ir_r10", "tr_r1", "r_mean", "rsum"):
        assert found[f"1k_{name}"] == pytest.approx((folds[0][name] + folds[1][name]) / 2)
    credits = Retrieval().credits(examples, answers)
    assert credits.keys() == found.keys() - {"ties", "1k_ties"}
    for name, own in credits.items():
        assert own.percent == pytest.approx(found[name])
        low, high = own.interval()
        assert 0 <= low <= found[name] <= high <= (600 if name.endswith("rsum") else 100)
        assert set(own.clusters) == {"a", "b", "c", "d"}
    without = {key: Rank(rank.rank, rank.ties) for key, rank in answers.items()}
    assert "1k_rsum" not in Retrieval().score(examples, without)
    assert Retrieval().score(examples, without)["rsum"] == found["rsum"]
    path = save("ranks.json", {})
    Retrieval().write(answers, path)
    assert Retrieval().read_answers(path) == answers


@pytest.mark.parametrize(("images", "folds"), [(2, False), (3, False), (4, True), (6, True)])
def test_when_there_are_folds(
    images: int,
    folds: bool,
    save: Callable[..., Path],
    make: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semvlp.eval.tasks.retrieval_ranks.FOLD", 2)
    names = {f"{n}.jpg": 1 for n in range(images)}
    examples = Retrieval().read([save("k.json", make.karpathy(names))], split="test")
    ranks = rank_answers(examples, np.eye(images, dtype=np.float32))
    assert ("1k_rsum" in Retrieval().score(examples, ranks)) == folds


@pytest.mark.parametrize("kind", ["karpathy", "coco"])
def test_images_without_a_caption_are_in_the_gallery(
    save: Callable[..., Path], make: type, kind: str
) -> None:
    """They are compared with every caption, and are no query themselves."""
    document = make.karpathy({"a": 1, "empty": 0, "b": 1})
    if kind == "coco":
        images = [{"id": n, "file_name": name} for n, name in enumerate(("a", "empty", "b"))]
        captions = [{"id": n, "image_id": 2 * n, "caption": "x"} for n in range(2)]
        document = {"images": images, "annotations": captions}
    examples = Retrieval().read([save("k.json", document)], split="test")
    assert image_names(examples) == ["a", "b", "empty"]
    answers = rank_answers(examples, np.array([[0.5, 0.1, 0.9], [0.1, 0.8, 0.2]], np.float32))
    assert answers == {0: Rank(2, 0), 1: Rank(1, 0), "a": Rank(1, 0), "b": Rank(1, 0)}
    assert Retrieval().ids(examples) == list(answers)
