"""The processor of a checkpoint, alone and through the Auto classes of transformers."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForVisualQuestionAnswering, AutoProcessor

import semvlp
from semvlp.app.collator import LabelledExample, SemVLPCollator
from semvlp.app.processor import SemVLPProcessor
from semvlp.errors import ConfigError, InputError
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import open_network
from semvlp.eval.tasks.table import load_task
from semvlp.model import SemVLPForTask
from semvlp.shards.stores.store import Store
from tests.app.conftest import Drawn


def answer(processor: SemVLPProcessor, path: Path, images: object, text: str) -> dict[str, float]:
    """What the model of a checkpoint says, by transformers' own means."""
    model = SemVLPForTask.from_pretrained(path)
    with torch.inference_mode():
        outputs = model(**processor(images=images, text=text))
    (answers,) = processor.post_process(outputs, top=100)
    return dict(answers)


@pytest.mark.parametrize("task", ["vqa", "nlvr2", "snli-ve", "retrieval"])
def test_it_answers_as_the_assistant_does(drawn: Drawn, task: str) -> None:
    path, text = drawn.checkpoint(task), "there is a red circle"
    processor = AutoProcessor.from_pretrained(path, device="cpu")
    assert isinstance(processor, SemVLPProcessor)
    photos = tuple(drawn.photos[: processor.images])
    reply = drawn.assistant(task).reply(photos, text, top=100)
    answers = answer(processor, path, [photos], text)
    assert list(answers) == [label for label, _ in reply.answers]
    np.testing.assert_allclose(list(answers.values()), [c for _, c in reply.answers], atol=1e-5)


def test_an_expression_is_answered_by_the_place_of_a_region(drawn: Drawn) -> None:
    path, photo, text = drawn.checkpoint("refcoco"), drawn.photos[-1], "the red circle"
    processor = AutoProcessor.from_pretrained(path, device="cpu")
    boxes = processor.regions(photo).boxes
    found = [
        (tuple(boxes[int(place)].tolist()), chance)
        for place, chance in answer(processor, path, photo, text).items()
    ]
    expected = drawn.assistant("refcoco").find(photo, text, top=100)
    assert [box for box, _ in found] == [region.box for region in expected]
    chances = [region.probability for region in expected]
    np.testing.assert_allclose([chance for _, chance in found], chances, atol=1e-5)
    with pytest.raises(ConfigError, match="the processor has no labels"):
        SemVLPCollator(processor)


def test_a_batch_is_padded_and_regions_spare_the_detector(drawn: Drawn, store: Store) -> None:
    processor = AutoProcessor.from_pretrained(drawn.checkpoint("vqa"), device="cpu")
    regions = [store.sample(index).regions for index in range(2)]
    names = [drawn.photos[[p.stem for p in drawn.photos].index(r.image_id)] for r in regions]
    texts = ["what is it?", "is there a red circle left of the square?"]
    inputs, seen = processor(regions, texts), processor(names, texts)
    assert set(inputs) == set(processor.model_input_names)
    assert all(torch.equal(inputs[name], seen[name]) for name in inputs)
    assert inputs["attention_mask"].sum(1).tolist() == [
        len(ids) for ids in processor.tokenizer(texts)["input_ids"]
    ]
    assert inputs["region_attention_mask"].sum(1).tolist() == [len(r) for r in regions]
    assert 0 <= inputs["region_boxes"].min() < inputs["region_boxes"].max() <= 1


def test_it_is_saved_and_comes_back_alone(drawn: Drawn, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(drawn.checkpoint("vqa"), device="cpu")
    processor(drawn.photos[0], "what is it?")  # what was opened is not stored
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, device="cpu", max_regions=2)
    stored = again.to_dict()
    assert stored.pop("max_regions") == 2
    assert stored == {n: v for n, v in processor.to_dict().items() if n != "max_regions"}
    assert again(drawn.photos[0], "what is it?")["region_features"].shape[1] <= 2
    written = json.loads((drawn.checkpoint("vqa") / "processor_config.json").read_text())
    assert written == processor.to_dict()
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not {"device", "detector", "max_regions", "labels"} & set(tokenizer)


def test_a_checkpoint_without_it_is_told_by_its_configuration(drawn: Drawn, tmp_path: Path) -> None:
    before = drawn.checkpoint("vqa")
    shutil.copytree(before, tmp_path / "old")
    (tmp_path / "old" / "processor_config.json").unlink()
    processor = AutoProcessor.from_pretrained(tmp_path / "old", device="cpu")
    assert processor.to_dict() == AutoProcessor.from_pretrained(before).to_dict()


def test_the_limits_of_training_come_from_the_hub_too(drawn: Drawn, tmp_path: Path) -> None:
    """Of what lies in `training/` the Hub gets no settings."""
    shutil.copytree(drawn.checkpoint("vqa"), tmp_path / "it")
    (tmp_path / "it" / "training" / "config.toml").unlink()
    path = tmp_path / "it" / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_regions": 7}))
    limits = open_network(tmp_path / "it", device="cpu", batch_size=1).limits
    assert (limits.max_regions, limits.max_text_length) == (7, 60)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"processor_config\.json: must say max_text_length"):
        open_network(tmp_path / "it", device="cpu", batch_size=1)


def test_what_does_not_fit_is_told(drawn: Drawn) -> None:
    photo = drawn.photos[0]
    asked = AutoProcessor.from_pretrained(drawn.checkpoint("vqa"), device="cpu")
    with pytest.raises(InputError, match="as many texts as examples, each with 1 photograph, got"):
        asked([photo], ["what?", "who?"])
    pairs = AutoProcessor.from_pretrained(drawn.checkpoint("nlvr2"), device="cpu")
    with pytest.raises(
        InputError, match="each with 2 photographs, got 1 texts and examples with 1"
    ):
        pairs(photo, "both show a circle")
    unknown = SemVLPProcessor(asked.tokenizer, labels=["yes", "no"])
    with pytest.raises(ConfigError, match="does not say which regions"):
        unknown(photo, "what?")


def snippet(drawn: Drawn, path: Path) -> str:
    """The code of a checkpoint's card, whole as it stands but for the names of files."""
    code = ModelCard.load(path / "README.md").text.split("```python")[1].split("```")[0]
    left, right = map(str, drawn.photos[:2])
    names = {"PATH_OR_NAME": str(path), "photo.jpg": left, "left.jpg": left, "right.jpg": right}
    for name, file in names.items():
        code = code.replace(name, file)
    return code


def test_the_snippet_of_the_card_runs_in_a_fresh_process(drawn: Drawn) -> None:
    """Before it `import semvlp` loads nothing; its finder changes nothing but two tables."""
    before = (
        "import inspect, sys, semvlp\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}\n"
        "from transformers.models.auto import configuration_auto as module\n"
        "assert module.CONFIG_MAPPING_NAMES['semvlp'] == 'SemVLPConfig'\n"
        "assert 'class AutoConfig' in inspect.getsource(module)\n"
    )
    after = "\nassert semvlp.load.__module__ == 'semvlp.app.assistant'\nimport semvlp.nothing"
    code = before + snippet(drawn, drawn.checkpoint("vqa")) + after
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'semvlp.nothing'"
    assert done.stdout.startswith("[[Answer(answer=")


@pytest.mark.parametrize("task", ["nlvr2", "snli-ve", "refcoco", None])
def test_every_card_has_a_snippet_that_runs(
    drawn: Drawn, capsys: pytest.CaptureFixture, task: str | None
) -> None:
    exec(snippet(drawn, drawn.checkpoint(task) if task else drawn.root / "pretrain" / "last"), {})
    assert ("Answer(answer=" if task else "torch.Size([1, 128])") in capsys.readouterr().out


def test_transformers_may_be_imported_first(drawn: Drawn) -> None:
    names = "AutoConfig, AutoModel, AutoProcessor"
    lines = [
        f"from transformers import {names}",
        "import semvlp, sys",
        "assert not [m for m in sys.modules if m.startswith('semvlp.model')]",
        f"path = {str(drawn.checkpoint('vqa'))!r}",
        f"print(*(type(kind.from_pretrained(path)).__name__ for kind in ({names})))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["SemVLPConfig", "SemVLPModel", "SemVLPProcessor"]


def test_training_writes_what_anybody_may_read(drawn: Drawn) -> None:
    files = [path for path in drawn.checkpoint("vqa").rglob("*") if path.is_file()]
    assert {"model.safetensors", "processor_config.json"} <= {path.name for path in files}
    assert len({stat.S_IMODE(path.stat().st_mode) for path in files}) == 1


def test_a_checkpoint_is_trained_by_the_trainer_of_transformers(
    drawn: Drawn, store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    path = drawn.checkpoint("vqa")
    processor = semvlp.SemVLPProcessor.from_pretrained(path, device="cpu")
    model = AutoModelForVisualQuestionAnswering.from_pretrained(path)
    examples = load_task("vqa").read(drawn.world.annotations("vqa", "train"))[:16]
    lookup = RegionLookup(store, examples, max_regions=9)
    rows = [
        LabelledExample(
            image=lookup.sample(example.images[0]).regions, text=example.text, label=example.target
        )
        for example in examples
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        max_steps=30,
        learning_rate=1e-3,
        logging_steps=10,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=SemVLPCollator(processor),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.8 * before
    trainer.save_model(str(tmp_path / "trained"))
    again = semvlp.load(tmp_path / "trained", device="cpu")
    assert again.ask(drawn.photos[0], "what is it?").answer in processor.labels


def test_the_collator_scores_labels(drawn: Drawn, store: Store) -> None:
    collator = SemVLPCollator(
        semvlp.SemVLPProcessor.from_pretrained(drawn.checkpoint("vqa"), device="cpu")
    )
    row = {"image": store.sample(0).regions, "text": "is it red?"}
    labels = collator.processor.labels
    batch = collator(
        [{**row, "label": labels[1]}, {**row, "label": {labels[0]: 0.6, "unheard of": 1.0}}]
    )
    expected = torch.zeros(2, len(labels))
    expected[0, 1], expected[1, 0] = 1.0, 0.6
    assert torch.equal(batch["labels"], expected)
    with pytest.raises(InputError, match="'unheard of'"):
        collator([{**row, "label": "unheard of"}])
