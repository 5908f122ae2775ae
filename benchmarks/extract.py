"""Images per second and peak memory of extraction, against the plain loop it replaces.

`python benchmarks/extract.py IMAGES`: one network with random weights and 1600 classes, the same
for all methods, on the same photographs:

- `torchvision`, `detectron2`: `semvlp extract` to shards, with each backend;
- `plain`: a loop over detectron2's model, one image at a time, with an NMS for each of the 1600
  classes, as bottom-up attention's script does (peteanderson80 tools/generate_tsv.py), to .npz;
- `forward`: the torchvision network alone on images decoded and resized before.

Every measurement is a process of its own, methods take turns, medians are compared. Without
detectron2 its two methods are left out. `--device cuda` takes ResNet-101 at 600/1000 pixels, a CPU
ResNet-50 unless `--network` says otherwise.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from semvlp.extract.detector import KNOWN, Proposals, load_detector
from semvlp.extract.families import FAMILIES, from_ours
from semvlp.extract.faster_rcnn import FasterRCNN
from semvlp.extract.images import find_images, load
from semvlp.extract.networks import NETWORKS
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.resize import ResizeRule, resize
from semvlp.extract.select import select

CLASSES, ATTRIBUTES = 1600, 400
METHODS = ("torchvision", "detectron2", "plain", "forward")


def main() -> None:
    arguments = _arguments()
    if arguments.method:
        print(json.dumps(_measured(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = folder
        _write_inputs(arguments)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.repeats):
            for method in _methods(arguments):
                found.setdefault(method, []).append(_in_a_process(method, arguments))
        _print(found, arguments)
        print(_selection(arguments.repeats))


def _methods(arguments: argparse.Namespace) -> tuple[str, ...]:
    try:
        import detectron2  # noqa: F401
    except ModuleNotFoundError:
        return ("torchvision", "forward")
    return METHODS


def _write_inputs(arguments: argparse.Namespace) -> None:
    """The list of photographs, and weights that spread boxes and scores as trained ones do."""
    network = KNOWN[arguments.network].network
    files = find_images(arguments.images)[: arguments.count]
    Path(arguments.work, "images.txt").write_text("\n".join(str(f.path.resolve()) for f in files))
    torch.manual_seed(0)
    made = FasterRCNN(NETWORKS[network], num_objects=CLASSES, num_attributes=ATTRIBUTES)
    with torch.no_grad():
        made.rpn.head.bbox_pred.weight.mul_(10)
        made.predictor.objects.weight.mul_(20)
        made.predictor.boxes.weight.mul_(100)
    family = next(family for family in FAMILIES if network in family.networks)
    torch.save({"model": from_ours(made.state_dict(), family)}, Path(arguments.work, "w.pth"))


def _in_a_process(method: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--method", method, "--work", arguments.work]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(arguments: argparse.Namespace) -> dict[str, float]:
    """Images per second and peak gigabytes of one method in this process."""
    images = Path(arguments.work, "images.txt")
    backend = "torchvision" if arguments.method == "forward" else arguments.method
    detector: Any = load_detector(
        arguments.network,
        weights=str(Path(arguments.work, "w.pth")),
        backend="detectron2" if backend == "plain" else backend,
        device=arguments.device,
        precision="fp32" if arguments.method == "plain" else arguments.precision,
        settings=arguments.settings,
    )
    run = _runs(arguments, detector, images)
    run(find_images(images)[:1])  # the first pass allocates and chooses algorithms
    files = find_images(images)
    started = time.monotonic()
    run(files)
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if arguments.device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 1e9
    return {"rate": len(files) / seconds, "memory": memory}


def _runs(
    arguments: argparse.Namespace, detector: Any, images: Path
) -> Callable[[list[Any]], object]:
    if arguments.method == "plain":
        return lambda files: [_plain(detector, load(file), Path(arguments.work)) for file in files]
    if arguments.method == "forward":
        rule = ResizeRule.of(detector._network.config)
        resized = {file: resize(load(file), rule).pixels[None] for file in find_images(images)}
        return lambda files: [detector._find(resized[file], [1.0]) for file in files]

    def extracted(files: list[Any]) -> object:
        some = Path(arguments.work, f"{len(files)}.txt")
        some.write_text("\n".join(str(file.path) for file in files))
        settings = ExtractSettings(
            overwrite=True, batch_size=arguments.batch_size, workers=arguments.workers
        )
        return extract(some, Path(arguments.work, "out"), settings, detector=detector)

    return extracted


@torch.inference_mode()
def _plain(detector: Any, image: Any, folder: Path) -> None:
    """One image through detectron2's model and the selection of generate_tsv.py."""
    from detectron2.data.transforms import ResizeShortestEdge

    model, sizes = detector._model, detector._cfg.INPUT
    shortest = ResizeShortestEdge([sizes.MIN_SIZE_TEST] * 2, sizes.MAX_SIZE_TEST)
    pixels = shortest.get_transform(image).apply_image(image)[:, :, ::-1].transpose(2, 0, 1).copy()
    batch = model.preprocess_image([{"image": torch.from_numpy(pixels)}])
    maps = model.backbone(batch.tensor)
    proposals, _ = model.proposal_generator(batch, maps, None)
    heads = model.roi_heads
    boxes = [each.proposal_boxes for each in proposals]
    pooled = heads._shared_roi_transform([maps[name] for name in heads.in_features], boxes)
    features = pooled.mean(dim=(2, 3))
    scores = heads.box_predictor.predict_probs(heads.box_predictor(features), proposals)[0]
    kept = _loop(boxes[0].tensor.cpu(), scores.cpu(), 36, 100)
    np.savez_compressed(
        folder / "plain.npz", x=features.cpu().numpy()[kept], bbox=boxes[0].tensor.cpu()[kept]
    )


def _loop(boxes: torch.Tensor, scores: torch.Tensor, low: int, high: int) -> Any:
    """An NMS for each class, the best surviving probability of each region, the confident ones."""
    best = torch.zeros(len(boxes))
    for label in range(scores.shape[1] - 1):
        kept = nms(boxes, scores[:, label], 0.3)
        best[kept] = torch.maximum(best[kept], scores[kept, label])
    count = min(max(int((best >= 0.2).sum()), low), high)
    return best.argsort(descending=True, stable=True)[:count].numpy()


def _selection(repeats: int) -> str:
    """Our selection against the loop, on one image of 300 regions with likely classes."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 400, (300, 2))], 1)
    logits = rng.gumbel(size=(300, CLASSES + 1)) * 2.5
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = Proposals(
        width=900,
        height=900,
        proposals=boxes.astype(np.float32),
        boxes=boxes[:, None].astype(np.float32),
        object_scores=scores.astype(np.float32),
        attribute_scores=np.zeros((300, 0), np.float32),
        features=rng.random((300, 2048)).astype(np.float32),
    )
    tensors = torch.from_numpy(found.proposals), torch.from_numpy(found.object_scores)
    ours = _median(lambda: select(found, image_id="x", profile="p"), 10 * repeats)
    loop = _median(lambda: _loop(*tensors, 36, 100), repeats)
    return f"selection: {ours * 1e3:.2f} ms, loop {loop * 1e3:.0f} ms, {loop / ours:.0f} x"


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _print(found: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    print(
        f"{arguments.network} {' '.join(arguments.settings)}, {arguments.count} images, "
        f"{arguments.device}, {arguments.precision}, {torch.get_num_threads()} threads, "
        f"median of {arguments.repeats}"
    )
    rates = {name: statistics.median(run["rate"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        memory = statistics.median(run["memory"] for run in runs)
        ratios = "".join(
            f" {rates[name] / rates[peer]:6.2f} x {peer}"
            for peer in ("plain", "forward")
            if peer in rates
        )
        print(f"{name:<12} {rates[name]:8.2f} images/s {memory:6.2f} GB{ratios}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--network", choices=[n for n in KNOWN if KNOWN[n].published])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.network is None:
        arguments.network = "butd" if arguments.device == "cuda" else "milvlg-r50"
        arguments.settings.insert(0, "num_proposals=300")
    return arguments


if __name__ == "__main__":
    main()
