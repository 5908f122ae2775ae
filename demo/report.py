"""RUN/report.html of the demo: regions, training and answers, in one file."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from semvlp.atomic import write_text
from semvlp.demo.dataset.files import WorldFiles
from semvlp.eval.eval_report import PAGE_NAME
from semvlp.eval.evaluate import EXPLAIN_NAME
from semvlp.eval.task import Example
from semvlp.eval.tasks.table import load_task
from semvlp.pages import link, render
from semvlp.shards.open import open_store
from semvlp.shards.record import Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.texts.image_ids import ImageIds
from semvlp.train.run.files import read_run
from semvlp.train.run.report import charts

PICTURES = 6
ANSWERS = 8
# Regions below this confidence are background to a reader.
MIN_SHOWN = 0.5
CHARTS = ("Loss, all objectives", "Image question answering", "Masked words", "Learning rate")


class Accuracy(NamedTuple):
    """An accuracy in percent with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it as `93.1 ±1.2`."""
        return f"{self.mean:.1f} ±{(self.high - self.low) / 2:.1f}"


Accuracies = Mapping[str, Mapping[str, Accuracy]]
"""By task and method."""


def write_report(out: Path, world: WorldFiles, regions: Path, scores: Accuracies) -> Path:
    """Write the page; return its path."""
    with open_store(regions) as store:
        files = {path.stem: path for path in (world.root / "images").rglob("*.png")}
        page = render(
            Path(__file__).with_name("report.html"),
            scores=scores,
            links=_links(out, scores),
            pictures=[_picture(store, index, files) for index in _spread(len(store), PICTURES)],
            charts=[c for c in charts(read_run(out / "pretrain")) if c["title"] in CHARTS],
            answers={
                task: _answers(task, world, out, ImageIds(store.image_ids), files)
                for task in scores
            },
            expressions=_expressions(world, files),
        )
    write_text(out / "report.html", page)
    return out / "report.html"


def _links(out: Path, tasks: Iterable[str]) -> dict[str, str]:
    """Return the addresses of the pages of runs and evaluations by what they show."""
    pages = {"pre-training": out / "pretrain" / "report.html"}
    for task in tasks:
        pages[f"fine-tuning: {task}"] = out / f"finetune-{task}" / "report.html"
        pages[f"evaluation: {task}"] = out / f"eval-{task}" / PAGE_NAME
        pages[f"attention: {task}"] = out / f"eval-{task}" / EXPLAIN_NAME
    links = {name: link(page, out) for name, page in pages.items()}
    return {name: address for name, address in links.items() if address}


def _spread(count: int, wanted: int) -> list[int]:
    """Choose `wanted` numbers below `count`, evenly apart."""
    return [count * i // wanted for i in range(min(wanted, count))]


def _picture(store: Store, index: int, files: Mapping[str, Path]) -> dict[str, Any]:
    """Describe a picture with the boxes and labels of its confident regions."""
    sample = store.sample(index)
    return {
        "name": sample.regions.image_id,
        "uri": _uri(files[sample.regions.image_id]),
        "width": sample.regions.width,
        "height": sample.regions.height,
        "boxes": list(_boxes(sample, store)),
        "count": len(sample.regions),
    }


def _boxes(sample: Sample, store: Store) -> list[dict[str, Any]]:
    manifest, regions = store.manifest, sample.regions
    return [
        {
            "x": float(x1),
            "y": float(y1),
            "w": float(x2 - x1),
            "h": float(y2 - y1),
            "label": f"{manifest.attribute_labels[attribute]} {manifest.object_labels[label]}",
        }
        for (x1, y1, x2, y2), label, attribute, confidence in zip(
            regions.boxes,
            regions.object_ids,
            regions.attribute_ids,
            regions.object_conf,
            strict=True,
        )
        if confidence >= MIN_SHOWN
    ]


def _answers(
    name: str, world: WorldFiles, out: Path, ids: ImageIds, files: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Describe some examples of the test split with the given and the right answer."""
    task = load_task(name)
    examples = task.read(world.annotations(name, "test"))
    given = task.read_answers(out / f"eval-{name}" / task.file_name("test"))
    chosen: Sequence[Example] = [examples[i] for i in _spread(len(examples), ANSWERS)]
    return [
        {
            "text": example.text,
            "images": [(name, _uri(files[ids.find(name) or name])) for name in example.images],
            "answer": str(given[example.example_id]),
            "right": max(example.target, key=lambda label: example.target[label]),
        }
        for example in chosen
    ]


def _expressions(world: WorldFiles, files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Describe some pictures with what an expression speaks of in each.

    There are none in worlds that were drawn before expressions were.
    """
    annotations = world.annotations("refcoco", "test")
    if not all(path.exists() for path in annotations):
        return []
    examples = load_task("refcoco").read(annotations)
    chosen = [examples[i] for i in _spread(len(examples), PICTURES)]
    return [
        {
            "text": example.text,
            "name": example.images[0],
            "uri": _uri(files[Path(example.images[0]).stem]),
            "box": dict(zip("xywh", example.meta["box"], strict=True)),
        }
        for example in chosen
    ]


def _uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
