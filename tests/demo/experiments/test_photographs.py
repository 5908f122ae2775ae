"""Cross-validated retrieval on photographs: every stage on a handful, and what is made of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semvlp.demo.experiments import photographs

SMALL = (
    "model.preset=tiny",
    "train.device=cpu",
    "train.threads=1",
    "train.batch_size=8",
    "train.steps=1",
    "data.max_regions=4",
)


def write_coco(folder: Path, count: int) -> Path:
    """Write photographs with two captions each."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = [
        {"id": n, "file_name": f"{n:012}.jpg", "width": 64, "height": 48} for n in range(count)
    ]
    for image in images:
        pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / str(image["file_name"]))
    captions = [
        {"id": 2 * n + k, "image_id": n, "caption": f"photograph {n} {'again' * k}"}
        for n in range(count)
        for k in range(2)
    ]
    document = {"images": images, "annotations": captions}
    (folder / "captions.json").write_text(json.dumps(document))
    return folder


@pytest.mark.slow
def test_every_stage_and_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "PARTS", 2)
    monkeypatch.setattr(photographs, "REGIONS", 4)
    monkeypatch.setattr(photographs, "PRETRAIN", (*SMALL, "model.vocab_size=200"))
    monkeypatch.setattr(photographs, "FINETUNE", SMALL)
    data, out = write_coco(tmp_path / "coco", count=7), tmp_path / "out"
    outcome = photographs.run_photographs(data, out)
    assert set(outcome.scores) == {"single", "two", "both"}
    assert set(outcome.scores["both"]) == {*photographs.SCORES, photographs.MATCHING}
    for row in outcome.scores["both"].values():
        assert row["with"] - row["without"] == pytest.approx(row["gain"])
    tested = [json.loads((out / f"part-{n}" / "test.json").read_text()) for n in range(2)]
    scored = [image["id"] for part in tested for image in part["images"]]
    assert sorted(scored) == [*range(7)], "each once"
    for number, part in enumerate(tested):
        learned = json.loads((out / f"part-{number}" / "train.json").read_text())["annotations"]
        assert not {one["image_id"] for one in learned} & {image["id"] for image in part["images"]}
        assert len(learned) == 2 * (7 - len(part["images"]))
    # Among three or four photographs the right one is always among the first five.
    assert outcome.scores["both"]["ir_r5"]["with"] == 100
    assert "both matching" in outcome.sentence()
