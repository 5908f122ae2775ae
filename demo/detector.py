"""Training the small detector that ships with the package, on drawn pictures alone."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from semvlp.atomic import write_json
from semvlp.demo.dataset.boxes_file import coco_boxes
from semvlp.demo.world.draw import draw
from semvlp.demo.world.random_scenes import draw_lots
from semvlp.demo.world.scene import Kind, Scene
from semvlp.extract.weights.checkpoint import DESCRIPTION, WEIGHTS
from semvlp.train.detector.config import DetectorTrainConfig, DetectorTrainReport
from semvlp.train.detector.train import train_detector

NAME = "demo_detector"
# Scenes of each use in a hundred; lying items are small and many, so there are most of them.
_MIXTURE: dict[tuple[Kind, bool], int] = {
    ("towers", False): 20,
    ("scatter", False): 45,
    ("square", False): 25,
    ("square", True): 10,
}


def train_demo_detector(
    out: Path, *, steps: int = 1500, seed: int = 0, pictures: int = 6000, lr: float = 2e-3
) -> DetectorTrainReport:
    """Draw `pictures` pictures and a twentieth of that to validate on, train the `small` network.

    The files to ship are `out/demo_detector.safetensors` and `out/demo_detector.json`; what they
    were made from lies beside them. The same call goes on where an earlier one stopped.
    """
    counts = {"train": pictures, "valid": max(20, pictures // 20)}
    images = _draw_pictures(out / "pictures", counts, seed)
    config = DetectorTrainConfig(
        network="small",
        steps=steps,
        batch_size=8,
        lr=lr,
        seed=seed,
        valid=out / "pictures" / "valid.json",
        valid_images=images / "valid",
    )
    run = out / "run"
    report = train_detector(out / "pictures" / "train.json", images / "train", run, config)
    for name in (WEIGHTS, DESCRIPTION):
        shutil.copyfile(run / name, (out / NAME).with_suffix(Path(name).suffix))
    return report


def _draw_pictures(out: Path, counts: Mapping[str, int], seed: int) -> Path:
    """Draw pictures of all kinds, write `<split>.json` with their boxes; return the directory."""
    for split, scenes in _mixed_scenes(counts, seed).items():
        if (out / f"{split}.json").exists():
            continue
        folder = out / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"{split}_{index:06d}.png": scene for index, scene in enumerate(scenes)}
        for name, scene in named.items():
            draw(scene).save(folder / name, compress_level=1)
        write_json(out / f"{split}.json", coco_boxes(named.items()), indent=None)
    return out / "images"


def _mixed_scenes(counts: Mapping[str, int], seed: int) -> dict[str, list[Scene]]:
    scenes: dict[str, list[Scene]] = {split: [] for split in counts}
    seen: set[str] = set()
    for (kind, covered), share in _MIXTURE.items():
        parts = {split: count * share // 100 for split, count in counts.items()}
        name = f"{seed}-{kind}-{covered}"
        for split, lot in draw_lots(kind, parts, seed=name, seen=seen, covered=covered).items():
            scenes[split] += lot
    return scenes
