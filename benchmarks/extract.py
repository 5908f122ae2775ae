"""Images per second and peak memory of extraction, against the plain loop it replaces.

`python benchmarks/extract.py IMAGES`: one network with random weights and 1600 classes, the same
for all methods, on the same photographs:

- `torchvision`, `detectron2`: `semvlp extract` to shards, with each backend and precision;
- `plain`: a loop over detectron2's model in fp32, one image at a time, with an NMS for each of the
  1600 classes and a row of text, as bottom-up attention's script does (peteanderson80
  tools/generate_tsv.py);
- `forward`: the torchvision network in fp32 alone on images decoded and resized before;
- `transformers`: `semvlp extract` with a random RT-DETR v2 (ResNet-18) of transformers at 320
  pixels (640 on a GPU), and `plain queries`, the loop its documentation shows, with a row of text
  for each image: its own peer.

Every measurement is a process of its own, methods take turns, medians are compared. Without
detectron2 its methods are left out. On a CPU the network is a ResNet-50 C4 at half of bottom-up
attention's size (300/500 pixels, 100 regions), which leaves backbone and region stage their shares;
with `--device cuda` it is bottom-up attention's ResNet-101 at 600/1000 pixels with 300.
"""

import argparse
import base64
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.ops import nms

from semvlp.distributed import device_of
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.published import read_published
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.find import ImageFile, find_images, load
from semvlp.extract.images.resize import ResizeRule, resize
from semvlp.extract.networks import NETWORKS
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.select import select
from semvlp.extract.weights.families import DETECTRON2, FAMILIES, from_ours
from semvlp.settings import override

CLASSES, ATTRIBUTES = 1600, 400
# Spread of class logits: the likeliest class of a region then has 0.2 and more, as after training.
SPREAD = 2.5
ON_CPU = ("num_proposals=100", "shorter_side=300", "longer_side=500")


class Method(NamedTuple):
    """What is measured."""

    name: str
    precision: str = "fp32"

    @property
    def label(self) -> str:
        return f"{self.name} {self.precision}"


PLAIN, FORWARD = Method("plain"), Method("forward")
QUERIES, PLAIN_QUERIES = Method("transformers"), Method("plain queries")


def main() -> None:
    arguments = _arguments()
    if arguments.method:
        print(json.dumps(_measured(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = folder
        _write_inputs(arguments)
        found: dict[Method, list[dict[str, float]]] = {}
        for _ in range(arguments.repeats):
            for method in _methods(arguments):
                found.setdefault(method, []).append(_in_a_process(method, arguments))
        _print(found, arguments)
        print(_selection(arguments.repeats))


def _methods(arguments: argparse.Namespace) -> list[Method]:
    try:
        import detectron2  # noqa: F401

        backends, plain = ("torchvision", "detectron2"), [PLAIN]
    except ModuleNotFoundError:
        backends, plain = ("torchvision",), []
    ours = [Method(name, each) for each in arguments.precisions for name in backends]
    return [*ours, *plain, FORWARD, QUERIES, PLAIN_QUERIES]


def _write_inputs(arguments: argparse.Namespace) -> None:
    """The list of photographs, and weights that spread boxes and scores as trained ones do."""
    name = KNOWN[arguments.network].network
    files = find_images(arguments.images)[: arguments.count]
    _write_list(Path(arguments.work, "images.txt"), files)
    torch.manual_seed(0)
    config = override(NETWORKS[name], arguments.settings)
    made = FasterRCNN(config, num_objects=CLASSES, num_attributes=ATTRIBUTES).eval()
    pixels = torch.tensor(resize(load(files[0]), ResizeRule.of(config)).pixels)
    with torch.no_grad():
        made.rpn.head.bbox_pred.weight.mul_(10)
        made.predictor.boxes.weight.mul_(100)
        (seen,) = made.detect(pixels.permute(2, 0, 1)[None], [1.0], Execution())
        logits = seen.features @ made.predictor.objects.weight.T
        made.predictor.objects.weight.mul_(SPREAD / (logits - logits.mean(0)).std())
        mean = made.predictor.objects.weight @ seen.features.mean(0)
        made.predictor.objects.bias.copy_(-mean)
    family = next(family for family in FAMILIES if name in family.networks)
    torch.save({"model": from_ours(made.state_dict(), family)}, Path(arguments.work, "w.pth"))
    _write_queries(Path(arguments.work, "queries"), 640 if arguments.device == "cuda" else 320)


def _write_queries(folder: Path, side: int) -> None:
    """A detector of transformers with random weights, as its library writes it."""
    from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config
    from transformers import RTDetrV2ForObjectDetection as Network

    backbone = RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrV2Config(
        backbone_config=backbone, encoder_in_channels=[128, 256, 512], decoder_layers=3
    )
    Network(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)


def _write_list(path: Path, files: Iterable[ImageFile]) -> None:
    path.write_text("\n".join(str(file.path.resolve()) for file in files))


def _in_a_process(method: Method, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--method", *method, "--work", arguments.work]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(arguments: argparse.Namespace) -> dict[str, float]:
    """Images per second, CPU seconds an image and peak gigabytes of one method, in this process."""
    run = _runs(Method(*arguments.method), arguments)
    files = find_images(Path(arguments.work, "images.txt"))
    run(files[:1])  # the first pass allocates and chooses algorithms
    started, worked = time.monotonic(), time.process_time()
    run(files)
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    seconds, worked = time.monotonic() - started, time.process_time() - worked
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if arguments.device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 1e9
    return {"rate": len(files) / seconds, "cpu": worked / len(files), "memory": memory}


def _runs(method: Method, arguments: argparse.Namespace) -> Callable[[list[ImageFile]], object]:
    """What a method does with photographs."""
    work = Path(arguments.work)
    if method == PLAIN:
        plain = _Plain(arguments)
        return lambda files: [plain(file) for file in files]
    if method == PLAIN_QUERIES:
        queries = _PlainQueries(arguments)
        return lambda files: [queries(file) for file in files]
    detector: Any
    if method == QUERIES:
        detector = load_detector(str(work / "queries"), device=arguments.device)
    else:
        detector = load_detector(
            arguments.network,
            weights=str(work / "w.pth"),
            backend="torchvision" if method == FORWARD else method.name,  # type: ignore[arg-type]
            device=arguments.device,
            precision=method.precision,  # type: ignore[arg-type]
            settings=arguments.settings,
        )
    if method == FORWARD:
        rule = ResizeRule.of(detector._network.config)
        files = find_images(work / "images.txt")
        resized = {file: resize(load(file), rule).pixels[None] for file in files}
        return lambda files: [detector._forward(resized[file], [1.0], [None]) for file in files]

    def extracted(files: list[ImageFile]) -> object:
        listed = work / f"{len(files)}.txt"
        _write_list(listed, files)
        settings = ExtractSettings(
            overwrite=True,
            preset="butd_10_100",
            batch_size=arguments.batch_size,
            workers=arguments.workers,
        )
        return extract(listed, work / "out", settings, detector=detector)

    return extracted


class _Plain:
    """detectron2's model as it is, one image at a time, and the script around it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from detectron2.data.transforms import ResizeShortestEdge

        from semvlp.extract.detectors.on_detectron2.backend import build_network
        from semvlp.extract.detectors.on_detectron2.cfg import config_of

        name, work = KNOWN[arguments.network].network, Path(arguments.work)
        config = override(NETWORKS[name], arguments.settings)
        cfg = config_of(config, num_objects=CLASSES, num_attributes=ATTRIBUTES)
        self.model = build_network(cfg, Execution(str(device_of(arguments.device))), "plain").eval()
        state = read_published(work / "w.pth", name)
        self.model.load_state_dict(from_ours(state, DETECTRON2))
        self.shortest = ResizeShortestEdge([config.shorter_side] * 2, config.longer_side)
        self.out = (work / "plain.tsv").open("w")

    @torch.inference_mode()
    def __call__(self, file: ImageFile) -> None:
        image = load(file)
        boxes, scores, features = self._found(image)
        kept = _loop(boxes.cpu(), scores.cpu(), 10, 100)
        row = [base64.b64encode(each.cpu().numpy()[kept]).decode() for each in (boxes, features)]
        self.out.write("\t".join([file.image_id, str(len(kept)), *row]) + "\n")

    def _found(self, image: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes, class probabilities and features of the regions, as `generate_tsv` gets them."""
        model, heads = self.model, self.model.roi_heads
        pixels = self.shortest.get_transform(image).apply_image(image)[:, :, ::-1]
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        batch = model.preprocess_image([{"image": tensor}])
        maps = model.backbone(batch.tensor)
        proposals, _ = model.proposal_generator(batch, maps, None)
        boxes = proposals[0].proposal_boxes
        pooled = heads._shared_roi_transform([maps[name] for name in heads.in_features], [boxes])
        features = pooled.mean(dim=(2, 3))
        predictions = heads.box_predictor(features)
        return boxes.tensor, heads.box_predictor.predict_probs(predictions, proposals)[0], features


class _PlainQueries:
    """transformers' detector as its documentation runs it, one image at a time."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        work = Path(arguments.work)
        folder = work / "queries"
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.device = device_of(arguments.device)
        self.model = AutoModelForObjectDetection.from_pretrained(folder).to(self.device).eval()
        self.out = (work / "queries.tsv").open("w")

    @torch.inference_mode()
    def __call__(self, file: ImageFile) -> None:
        with Image.open(file.path) as opened:
            image = opened.convert("RGB")
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        output = self.model(**inputs)
        (kept,) = self.processor.post_process_object_detection(
            output, threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        parts = (kept["boxes"][:100], kept["scores"][:100], output.last_hidden_state[0, :100])
        row = [base64.b64encode(each.cpu().numpy()).decode() for each in parts]
        self.out.write("\t".join([file.image_id, *row]) + "\n")


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
    return (
        f"selection of one image with 300 regions: {ours * 1e3:.2f} ms, loop over {CLASSES} "
        f"classes {loop * 1e3:.0f} ms: {loop / ours:.0f} times as long"
    )


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _print(found: dict[Method, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """A table in Markdown."""
    print(
        f"{arguments.network} {' '.join(arguments.settings)}, {arguments.count} images, "
        f"{_machine(arguments.device)}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, commit {_commit()}, median of {arguments.repeats} (least, most)\n"
    )
    print("| method | images/s | of plain | of forward | CPU s/image | peak memory, GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    rates = {method: statistics.median(_all(runs, "rate")) for method, runs in found.items()}
    for method, runs in found.items():
        each = _all(runs, "rate")
        peers = [PLAIN_QUERIES, None] if method in (QUERIES, PLAIN_QUERIES) else [PLAIN, FORWARD]
        ratios = [f"{rates[method] / rates[peer]:.2f}" if peer in rates else "-" for peer in peers]
        others = [f"{statistics.median(_all(runs, name)):.2f}" for name in ("cpu", "memory")]
        print(
            f"| {method.label} | {rates[method]:.2f} ({min(each):.2f}, {max(each):.2f}) | "
            f"{' | '.join([*ratios, *others])} |"
        )
    print()


def _all(runs: Iterable[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


def _machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, help="photographs; 12 on a CPU, 256 on a GPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"]
    )
    parser.add_argument("--network", choices=[n for n in KNOWN if KNOWN[n].network in NETWORKS])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--method", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.count = arguments.count or (256 if on_gpu else 12)
    if arguments.network is None:
        arguments.network = "butd" if on_gpu else "milvlg-r50"
        arguments.settings = [*(() if on_gpu else ON_CPU), *arguments.settings]
    return arguments


if __name__ == "__main__":
    main()
