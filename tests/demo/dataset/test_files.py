"""A written world: official forms that the rest of the system reads, and nothing given away."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semvlp.demo.dataset.annotations import memes
from semvlp.demo.dataset.compose import compose
from semvlp.demo.dataset.files import TASK_FILES, WorldFiles, write_world
from semvlp.demo.dataset.split_world import SplitWorld
from semvlp.demo.run import SMALL as DEMO
from semvlp.demo.world.config import WorldConfig
from semvlp.demo.world.draw import draw
from semvlp.demo.world.random_scenes import thing_of
from semvlp.demo.world.scene import KINDS
from semvlp.errors import ConfigError, InputError
from semvlp.eval.baselines import text_only
from semvlp.eval.task import Example
from semvlp.eval.tasks.table import load_task
from semvlp.shards.texts.texts import read_texts
from semvlp.train.detector.coco import read_annotations

SCENES = {"train": 60, "valid": 24}
# Three points above what guessing reaches, as for any benchmark that needs its pictures.
CHANCE, MARGIN = {2: 50.0, 3: 100 / 3}, 3.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return write_world(tmp_path_factory.mktemp("world") / "w", scenes=SCENES, seed=5)


@pytest.fixture(scope="module")
def larger() -> dict[str, SplitWorld]:
    config = WorldConfig(covered=0.5, pairs=0.5, nlvr=0.1)
    worlds = compose({"train": 240, "valid": 100}, seed=1, config=config)
    return {world.split: world for world in worlds}


@pytest.mark.parametrize("task", list(TASK_FILES))
@pytest.mark.parametrize("split", list(SCENES))
def test_every_task_reads_its_files_and_the_pictures_are_there(
    world: WorldFiles, task: str, split: str
) -> None:
    examples = load_task(task).read(world.annotations(task, split))
    images = {path.stem for path in world.images(split).iterdir()}
    numbers = {str(int(name.split("_")[-1])): name for name in images if "_" in name}
    assert len(examples) >= 12
    for example in examples:
        assert example.target
        for name in example.images:
            assert name in images or name in numbers or Path(name).stem in images


def test_texts_of_every_picture_can_be_joined(world: WorldFiles) -> None:
    texts = read_texts([world.texts("train")])
    assert set(texts) == {path.stem for path in world.images("train").iterdir()}
    assert all(entry.captions for entry in texts.values())
    questions = [question for entry in texts.values() for question in entry.questions]
    answers = Counter(next(iter(question.answers)) for question in questions)
    assert answers["true"] == answers["false"] > 100
    assert len(questions) >= 10 * SCENES["train"]


def test_boxes_are_read_as_a_detectors_training_data(world: WorldFiles) -> None:
    boxes = read_annotations(world.boxes("valid"), world.images("valid"))
    assert boxes.object_labels[:2] == ("box", "curtain")
    assert len(boxes.images) == len(list(world.images("valid").iterdir()))
    for image in boxes.images:
        with Image.open(image.file.path) as picture:
            assert picture.size == (image.width, image.height)
        assert all(len(thing.attributes or ()) == 1 for thing in image.objects)


def test_nlvr_pictures_show_their_structure(world: WorldFiles) -> None:
    lines = world.annotations("nlvr", "train")[0].read_text().splitlines()
    for record in map(json.loads, lines):
        middle = record["structured_rep"][1][0]
        first = world.images("train") / f"train-{record['identifier']}-0.png"
        last = world.images("train") / f"train-{record['identifier']}-5.png"
        x, y = middle["x_loc"] + middle["size"] // 2, middle["y_loc"] + middle["size"] // 2
        with Image.open(first) as one, Image.open(last) as other:
            # The middle box stays in the middle when the order is reversed.
            assert one.getpixel((150 + x, y)) == other.getpixel((150 + x, y)) != (211, 211, 211)


def test_nlvr_sentences_are_true_of_half_their_family(larger: dict[str, SplitWorld]) -> None:
    truths = defaultdict(list)
    for fact in larger["train"].nlvr:
        truths[fact.identifier.split("-")[0], fact.text].append(fact.holds)
    assert len(truths) >= 4
    assert all(sorted(held) == [False, False, True, True] for held in truths.values())


def test_the_same_values_give_the_same_world() -> None:
    once, again = ([*compose({"train": 30}, seed=2)] for _ in range(2))
    (other,) = compose({"train": 30}, seed=3)
    assert once == again
    assert once[0].statements != other.statements


def test_the_demos_own_world_has_a_table_of_two_classes() -> None:
    (world,) = compose({"train": 6}, seed=0, config=DEMO.world)
    labels = [row["label"] for row in memes(world)]
    assert labels == [int(fact.answer == "true") for fact in world.statements]
    assert 0 < sum(labels) < len(labels)


def test_no_two_uses_or_splits_share_a_scene(larger: dict[str, SplitWorld]) -> None:
    by_key = defaultdict(set)
    for split, world in larger.items():
        for picture in (*world.scenes, *world.covered):
            by_key[picture.scene.key].add((split, picture.image_id))
        for fact in world.nlvr:
            by_key[fact.scene.key].add((split, fact.identifier))
        for pair in world.pairs:
            for picture in (pair.left, pair.right):
                by_key[picture.scene.key].add((split, picture.image_id))
    assert len(by_key) > 500
    assert all(len(uses) == 1 for uses in by_key.values())


@pytest.mark.parametrize("each", [0, 0.25, 0.5, 1.2])
def test_pairs_are_of_scenes_that_are_there(each: float) -> None:
    """All scenes of a kind are in equally many pairs, or in one more; never with themselves."""
    (world,) = compose({"train": 40}, seed=6, config=WorldConfig(pairs=each, pair_statements=20))
    pictures = {picture.image_id: picture for picture in world.scenes}
    pairs = {(fact.left.image_id, fact.right.image_id) for fact in world.pairs}
    uses = Counter({name: 0 for name in pictures}) + Counter(
        name for pair in pairs for name in pair
    )
    for kind in KINDS:
        names = [name for name, picture in pictures.items() if picture.scene.kind == kind]
        counts = [uses[name] for name in names]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == pytest.approx(2 * each * len(names), abs=2)
    for left, right in pairs:
        assert left != right
        assert pictures[left].scene.kind == pictures[right].scene.kind


def test_the_shares_of_the_kinds_are_kept(larger: dict[str, SplitWorld]) -> None:
    kinds = Counter(picture.scene.kind for picture in larger["train"].scenes)
    assert kinds == {"towers": 72, "scatter": 72, "square": 96}
    only = next(compose({"train": 20}, seed=0, config=WorldConfig(square=0, covered=0)))
    assert Counter(picture.scene.kind for picture in only.scenes) == {"towers": 10, "scatter": 10}


def test_statements_tell_scenes_apart_that_hold_the_same_things() -> None:
    config = WorldConfig(square=0, covered=0, pairs=0, nlvr=0, statements=0, alike_statements=6)
    (world,) = compose({"train": 40}, seed=4, config=config)
    answers: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for fact in world.statements:
        things = sorted(map(thing_of, fact.picture.scene.items))
        answers[fact.text, *things][fact.answer] += 1
    assert len(world.statements) >= 5 * 40
    assert all(counts["true"] == counts["false"] > 0 for counts in answers.values())


@pytest.mark.parametrize("use", ["statements", "pairs", "hypotheses"])
def test_the_text_alone_does_not_tell_the_answer(larger: dict[str, SplitWorld], use: str) -> None:
    train, valid = (examples(larger[split], use) for split in ("train", "valid"))
    given = text_only(train, valid)
    right = sum(given[example.example_id] in example.target for example in valid)
    labels = {label for example in valid for label in example.target}
    assert len(valid) > 100
    assert 100 * right / len(valid) <= CHANCE[len(labels)] + MARGIN


def examples(world: SplitWorld, use: str) -> list[Example]:
    facts = {
        "statements": [(fact.text, fact.answer) for fact in world.statements],
        "pairs": [(fact.text, str(fact.holds)) for fact in world.pairs],
        "hypotheses": [(fact.text, fact.answer) for fact in world.hypotheses],
    }[use]
    return [
        Example(example_id=index, text=text, images=("x",), target={answer: 1.0})
        for index, (text, answer) in enumerate(facts)
    ]


def test_a_world_that_is_there_is_left_alone(world: WorldFiles) -> None:
    written = world.texts("train").stat().st_mtime_ns
    assert write_world(world.root, scenes=SCENES, seed=5) == world
    assert world.texts("train").stat().st_mtime_ns == written


def test_a_world_that_was_written_before_a_setting_was_known_is_left_alone(
    world: WorldFiles,
) -> None:
    mark = world.root / "world.json"
    known = mark.read_text()
    made_of = json.loads(known)
    del made_of["config"]["variety"]
    mark.write_text(json.dumps(made_of))
    assert write_world(world.root, scenes=SCENES, seed=5) == world
    mark.write_text(known)


def test_another_world_is_not_written_over_it(world: WorldFiles) -> None:
    with pytest.raises(ConfigError, match="holds another one"):
        write_world(world.root, scenes=SCENES, seed=6)


def test_a_world_that_was_cut_short_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = {"train": 8}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("semvlp.demo.dataset.files._write_texts", killed)
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path, scenes=scenes, seed=0)
    with pytest.raises(ConfigError, match="holds another one"):
        write_world(tmp_path, scenes=scenes, seed=1)
    files = write_world(tmp_path, scenes=scenes, seed=0)
    assert files.texts("train").exists()
    assert "unfinished" not in (tmp_path / "world.json").read_text()


def test_pictures_are_what_was_composed(world: WorldFiles) -> None:
    (composed, _) = compose(SCENES, seed=5)
    for picture in [*composed.pictures][::17]:
        with Image.open(world.images("train") / f"{picture.image_id}.png") as image:
            assert (np.asarray(image) == np.asarray(draw(picture.scene))).all()


def test_shares_must_be_possible() -> None:
    with pytest.raises(ValueError, match="positive in sum"):
        WorldConfig(towers=0, scatter=0, square=0)


@pytest.mark.parametrize("name", ["texts_train.jsonl", "images/train/a.png", "notes.txt"])
def test_no_world_is_drawn_among_files_of_somebody_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("somebody's")
    with pytest.raises(ConfigError, match=r"holds something else \(no world\.json\)"):
        write_world(tmp_path, scenes={"train": 8}, seed=0)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"[1]", b"\xff"])
def test_damaged_values_of_a_world_are_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "world.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"world\.json must hold what the world was made from"):
        write_world(tmp_path, scenes={"train": 8}, seed=0)
