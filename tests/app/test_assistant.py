"""A checkpoint in use: the regions, the probabilities and the refusals of `semvlp.load`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import semvlp
from semvlp.app.assistant import load
from semvlp.errors import ConfigError, InputError
from semvlp.eval.network import open_network
from semvlp.eval.predict import predict
from semvlp.eval.tasks.table import load_task
from semvlp.names import EvalMode
from semvlp.shards.record import Regions
from semvlp.shards.stores.store import Store
from tests.app.conftest import Drawn


def same(one: Regions, other: Regions) -> None:
    for name in ("boxes", "features", "object_ids", "object_conf", "attribute_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.width, one.height, one.profile) == (other.width, other.height, other.profile)


def test_its_regions_are_those_that_extract_stores(drawn: Drawn, store: Store) -> None:
    vlp, path = drawn.assistant("vqa"), drawn.photos[0]
    stored = store.sample(store.index_of(path.stem)).regions
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
        for photo in (path, str(path), image.copy(), pixels):
            same(vlp.regions(photo), stored)
    assert vlp.regions(stored) is stored


@pytest.mark.parametrize("mode", ["single", "two", "both"])
@pytest.mark.parametrize("name", ["vqa", "nlvr2", "snli-ve"])
def test_its_probabilities_are_those_of_an_evaluation(
    drawn: Drawn, store: Store, name: str, mode: EvalMode
) -> None:
    task = load_task(name)
    examples = task.read(drawn.world.annotations(name, "train"))[:7]
    network = open_network(drawn.checkpoint(name), device="cpu", batch_size=3)
    options: dict[str, Any] = {"mode": mode, "batch_size": 3, "device": "cpu"}
    given = (network.model, network.tokenizer, task, examples, store)
    expected = predict(*given, **options, limits=network.limits)
    vlp = drawn.assistant(name, mode=mode)
    files = {path.stem: path for path in drawn.photos}
    names = {str(int(stem.split("_")[-1])): stem for stem in files if "_" in stem}
    for example, row in zip(examples, expected, strict=True):
        photos = [files[names.get(image, Path(image).stem)] for image in example.images]
        reply = vlp.reply(photos, example.text, top=len(vlp.labels))
        found = dict(reply.answers)
        np.testing.assert_allclose([found[label] for label in vlp.labels], row, atol=1e-5)
        assert [a.probability for a in reply.answers] == sorted(found.values(), reverse=True)


def test_several_photographs_and_questions_are_asked_each_with_each(drawn: Drawn) -> None:
    vlp, photos, texts = drawn.assistant("vqa"), drawn.photos[:2], ["what is it?", "is it red?"]
    replies = vlp.ask(photos, texts, top=2)
    assert [reply.text for reply in replies] == texts * 2
    assert [reply.regions[0].image_id for reply in replies] == [
        photo.stem for photo in photos for _ in texts
    ]
    alone = vlp.ask(photos[1], texts[0], top=2)
    assert alone.answers == replies[2].answers
    assert len(alone.answers) == 2
    assert alone.answer == alone.answers[0].answer


def test_a_reply_tells_where_the_network_looked(drawn: Drawn) -> None:
    reply = drawn.assistant("nlvr2").reply(drawn.photos[:2], "both images show a circle")
    assert len(reply.regions) == len(reply.attention) == 2
    for regions, between in zip(reply.regions, reply.attention, strict=True):
        assert between.to_regions.shape == (between.to_words.shape[1], len(regions))
        assert float(between.to_regions.sum()) > 0


def test_a_pretrained_checkpoint_answers_questions(drawn: Drawn) -> None:
    """By its own answer head, whose answers exclude each other."""
    vlp = load(drawn.root / "pretrain" / "last", device="cpu")
    reply = vlp.ask(drawn.photos[0], "what is it?", top=len(vlp.labels))
    assert vlp.labels == vlp.network.model.config.labels
    assert {"true", "false", "yes"} <= set(vlp.labels)
    assert sum(chance for _, chance in reply.answers) == pytest.approx(1, abs=1e-4)


def test_each_task_has_its_question(drawn: Drawn) -> None:
    photo, other = drawn.photos[:2]
    chance = drawn.assistant("nlvr2").true_of((photo, other), "there are two circles")
    assert 0 < chance < 1
    assert 0 < drawn.assistant("nlvr").true_of(photo, "there are two circles") < 1
    entailed = drawn.assistant("snli-ve").entails(photo, "there is a circle")
    assert {answer for answer, _ in entailed.answers} == {
        *("entailment", "neutral", "contradiction")
    }
    assert sum(chance for _, chance in entailed.answers) == pytest.approx(1, abs=1e-5)
    chances = drawn.assistant("retrieval").match(photo, ["a circle", "two red squares"])
    assert all(0 < chance < 1 for chance in chances)
    assert chances[0] != chances[1]


@pytest.mark.parametrize("saved", [True, False])
def test_an_expression_is_found_among_the_regions(drawn: Drawn, saved: bool) -> None:
    vlp, photo = drawn.assistant("refcoco"), drawn.photos[-1]
    if not saved:
        vlp.network.model.config.task = None
    regions = vlp.regions(photo)
    places = vlp.find(photo, "the red circle", top=len(regions))
    chances = [place.probability for place in places]
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert chances == sorted(chances, reverse=True)
    assert sorted(place.box for place in places) == sorted(map(tuple, regions.boxes.tolist()))
    assert vlp.find(regions, "the red circle", top=1) == places[:1]
    with pytest.raises(ConfigError, match="`find` gives its regions"):
        vlp.reply((photo,), "the red circle")


@pytest.mark.parametrize("saved", [True, False])
def test_another_question_is_one_clear_error(drawn: Drawn, saved: bool) -> None:
    """Also of checkpoints that do not say their task: their labels do."""
    photo = drawn.photos[0]
    for task, call in {
        "snli-ve": lambda vlp: vlp.ask(photo, "what?"),
        "nlvr": lambda vlp: vlp.entails(photo, "it is red"),
        "vqa": lambda vlp: vlp.true_of(photo, "it is red"),
        "nlvr2": lambda vlp: vlp.match(photo, ["it is red"]),
    }.items():
        vlp = drawn.assistant(task)
        if not saved:
            vlp.network.model.config.task = None
        with pytest.raises(ConfigError, match=f"was fine-tuned on {task}"):
            call(vlp)


def test_photographs_too_many_or_too_few_are_refused(drawn: Drawn) -> None:
    photos = drawn.photos[:2]
    with pytest.raises(InputError, match="nlvr2 takes 2 photographs with a text, got 1"):
        drawn.assistant("nlvr2").true_of(photos[0], "there are two circles")
    with pytest.raises(InputError, match="vqa takes 1 photograph with a text, got 2"):
        drawn.assistant("vqa").reply(photos, "what is it?")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must have words, got ''"),
        ("  ", "must have words, got '  '"),
        ("x" * 10_001, "must have at most 10000 characters, got 10001"),
    ],
)
def test_empty_and_endless_texts_are_refused(drawn: Drawn, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        drawn.assistant("vqa").ask(drawn.photos[0], text)


def test_what_is_no_photograph_is_named(drawn: Drawn, tmp_path: Path) -> None:
    vlp, text, missing = drawn.assistant("vqa"), tmp_path / "text.jpg", tmp_path / "no.jpg"
    text.write_text("no photograph")
    for path, reason in ((text, "not an image"), (missing, "cannot be read")):
        with pytest.raises(InputError, match=rf"{path.name}.*{reason}"):
            vlp.ask(path, "what is it?")
    with pytest.raises(InputError, match=r"RGB \[H, W, 3\] of uint8, got \[20, 20\] of float64"):
        vlp.ask(np.zeros((20, 20)), "what is it?")


def profile_of(vlp: Any) -> dict[str, Any]:
    return json.loads(json.dumps(vlp.network.model.config.region_profile))


def test_a_detector_that_is_not_known_is_asked_for(drawn: Drawn) -> None:
    vlp = drawn.assistant("vqa")
    vlp.region_profile = profile_of(vlp) | {"weights_sha256": "1f" * 32}
    with pytest.raises(ConfigError, match=r"demo differs: weights_sha256 was '1f.*--detector"):
        vlp.ask(drawn.photos[0], "what is it?")


def test_another_detector_is_refused(drawn: Drawn) -> None:
    vlp = drawn.assistant("vqa", detector="untrained")
    with pytest.raises(ConfigError, match=r"untrained differs: .*feature_size was 256, now 2048"):
        vlp.regions(drawn.photos[0])


@pytest.mark.parametrize("profile", [None, {"format": "lxmert-tsv", "source": "train2014"}])
def test_regions_of_no_detector_of_ours_are_told(
    drawn: Drawn, store: Store, profile: dict[str, Any] | None
) -> None:
    """Regions that were made before can be asked about all the same."""
    vlp = drawn.assistant("vqa")
    vlp.region_profile = profile
    with pytest.raises(ConfigError, match=r"does not say which|source train2014"):
        vlp.ask(drawn.photos[0], "what is it?")
    assert len(vlp.ask(store.sample(0).regions, "what is it?").answers) == len(vlp.labels)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load(tmp_path / "nowhere")


def test_loading_brings_along_neither_models_of_transformers_nor_a_compiler(drawn: Drawn) -> None:
    """Each takes seconds to import, and answers about known regions need none of them."""
    heavy = ["torch._dynamo", "torchvision.ops", "transformers.modeling_utils"]
    code = (
        f"import semvlp, sys; semvlp.load({str(drawn.checkpoint('vqa'))!r}, device='cpu');"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_names_of_the_package_are_few_and_there() -> None:
    assert len(semvlp.__all__) <= 10
    assert all(getattr(semvlp, name) for name in semvlp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        semvlp.lod  # noqa: B018
