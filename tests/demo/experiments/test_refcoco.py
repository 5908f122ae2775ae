"""The experiment on referring expressions, on a tiny world and an untrained network."""

from pathlib import Path

import pytest

from semvlp import settings
from semvlp.demo.dataset.files import write_world
from semvlp.demo.experiments import refcoco
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.train.config import PretrainConfig
from semvlp.train.pretrain import pretrain

pytestmark = pytest.mark.slow

SMALL = ("train.device=cpu", "train.batch_size=8", "train.steps=1", "data.max_regions=8")


def test_every_stage_and_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refcoco, "SCENES", {"train": 6, "valid": 3, "heldout": 4})
    monkeypatch.setattr(refcoco, "FINETUNE", SMALL)
    demo, out = tmp_path / "demo", tmp_path / "out"
    world = write_world(demo / "world", scenes={"train": 2}, seed=0, config=refcoco.WORLD)
    chosen = ExtractSettings(detector="demo", precision="auto")
    extract(world.root / "images", demo / "regions", chosen)
    join(demo / "regions", [world.texts("train")], demo / "shards", only_matched=True)
    start = settings.load(PretrainConfig, None, (*SMALL, "model.preset=tiny"))
    pretrain([demo / "shards"], demo / "pretrain", start)
    report = refcoco.run_refcoco(demo, out)
    assert report.scores is not None
    assert set(report.scores["modes"]) == {"single", "two", "both"}
    assert report.scores["upper_bound"] >= report.scores["accuracy"]
    for name in ("accuracy", "upper_bound", "first_region", "largest_region"):
        low, high = report.scores[f"{name}_interval"]
        assert low <= report.scores[name] <= high
    assert "chose the solid box" in (out / "eval" / "report.html").read_text()
    assert refcoco.run_refcoco(demo, out).scores == report.scores
