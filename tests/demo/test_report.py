"""The page of the demo: links to the pages that are there, and words for every picture."""

import re
from pathlib import Path

from semvlp.demo.dataset.files import write_world
from semvlp.demo.report import Accuracy, write_report
from semvlp.demo.world.config import WorldConfig
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract


def test_pages_that_exist_are_linked_and_every_picture_has_words(tmp_path: Path) -> None:
    out, task = tmp_path, load_task("nlvr2")
    config = WorldConfig(towers=0, scatter=0, square=1, covered=0, nlvr=0, pairs=1)
    world = write_world(out / "world", scenes={"test": 4}, seed=0, config=config)
    chosen = ExtractSettings(detector="demo", precision="fp32")
    extract(world.root / "images", out / "regions", chosen)
    examples = task.read(world.annotations("nlvr2", "test"))
    for folder in ("pretrain", "finetune-nlvr2", "eval-nlvr2"):
        (out / folder).mkdir()
    answers = {example.example_id: "True" for example in examples}
    task.write(answers, out / "eval-nlvr2" / task.file_name("test"))
    scores = {"nlvr2": {"both": Accuracy(90, 89, 91)}}
    assert "<nav>" not in write_report(out, world, out / "regions", scores).read_text()

    pages = ["pretrain/report.html", "finetune-nlvr2/report.html", "eval-nlvr2/report.html"]
    for name in pages:
        (out / name).touch()
    page = write_report(out, world, out / "regions", scores).read_text()
    assert re.findall(r'<a href="([^"]*)"', page) == pages
    assert len(re.findall("<img", page)) == len(re.findall(r'<img [^>]*alt="[^"]+"', page)) > 0
    drawn = re.findall(r"<svg [^>]*>", page)
    assert len(drawn) == len(re.findall(r'<svg [^>]*aria-label="[^"]+"', page)) > 0
