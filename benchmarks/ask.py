"""What `ask` and `search` cost on one core, in milliseconds: medians beside what they aim at.

`python benchmarks/ask.py`: a drawn world with the demo's detector and a network of the demo's size
with random weights, for speed does not depend on them. Times are those that the processor spends on
one thread, so that other programs on the machine do not count. `search` is told for the drawn
photographs and, by rows of random numbers that are read from files as kept ones are, for
`--photographs`. With `--real` also what a base network adds to the forward pass of a detector of
real size (ResNet-50 C4 on 800 pixels, random weights).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import semvlp
from semvlp.app.assistant import Assistant
from semvlp.app.block import Block
from semvlp.app.kept import BLOCK, KeptRows
from semvlp.app.search import PhotoSearch
from semvlp.demo.dataset.files import write_world
from semvlp.demo.world.config import WorldConfig
from semvlp.eval.matching.shortlist import SeenWords, label_words
from semvlp.eval.tasks.retrieval import LABELS
from semvlp.extract.images.find import find_images
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.dataset.manifest import Manifest, read_manifest

QUESTION, TEXT = "how many red circles are left of the square?", "a red circle above a blue square"
ANSWERS = ["yes", "no", *map(str, range(10)), "red", "blue", "green", "circle", "square"]
KEY = "random numbers"
DRAWN_REGIONS = 8
"""As the demo reads of a picture."""
LOAD = """
import sys, time, torch
torch.set_num_threads(1)
start = time.process_time()
import semvlp
semvlp.load(sys.argv[1], device="cpu")
print(time.process_time() - start)
"""
Rows = list[tuple[str, list[float], str]]


class Drawn(NamedTuple):
    """A drawn world, its regions, and checkpoints that fit them."""

    photos: Path
    shards: Path
    asked: Path
    searching: Path


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        drawn = _draw(Path(folder), arguments.scenes)
        rows = [*_ask(drawn, arguments.repeats), *_load(drawn, arguments.loads)]
        rows += _search(drawn, Path(folder) / "rows", arguments)
        print(f"one thread, torch {torch.__version__}; milliseconds of the processor, medians\n")
        print("| | ms | aim |\n| --- | --- | --- |")
        for name, times, aim in rows:
            print(f"| {name} | {1000 * statistics.median(times):.1f} | {aim} |")
        if arguments.real:
            print(f"\n{_real(Path(folder), drawn, arguments.real)}")


def _ask(drawn: Drawn, repeats: int) -> Rows:
    vlp = semvlp.load(drawn.asked, device="cpu")
    files = find_images(drawn.photos)[: repeats + 1]
    known = [vlp.regions(file) for file in files]
    return [
        ("question, regions known", _times(lambda seen: vlp.ask(seen, QUESTION), known), "20"),
        ("question, new photograph", _times(lambda file: vlp.ask(file, QUESTION), files), "100"),
    ]


def _load(drawn: Drawn, repeats: int) -> Rows:
    """Load in processes of their own, which have imported torch before."""
    command = [sys.executable, "-c", LOAD, str(drawn.asked)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    times = [
        float(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        for _ in range(repeats)
    ]
    return [("`semvlp.load`, torch imported", times, "2000")]


def _search(drawn: Drawn, folder: Path, arguments: argparse.Namespace) -> Rows:
    """Search the drawn photographs, and as many rows of random numbers as are asked for."""
    vlp = semvlp.load(drawn.searching, device="cpu", mode="two")
    start = time.process_time()
    with PhotoSearch(vlp, drawn.shards) as photos:
        first = time.process_time() - start
        count, again = len(photos.store), [TEXT] * (arguments.repeats + 1)
        rows: Rows = [
            (f"keep the rows of {count:,} photographs", [first], ""),
            (f"search {count:,}, all compared", _times(photos.search, again), ""),
        ]
        manifest = photos.store.manifest
        names = [f"{number:06d}" for number in range(arguments.photographs)]
        photos.store.close()
        photos.store, photos.kept = _Names(names), _Random(vlp, manifest, folder, len(names))
        start = time.process_time()
        photos.search(TEXT)
        first = time.process_time() - start
        compared = f"{photos.num_compared:,} compared"
        rows += [
            (f"first search of {len(names):,} random, {compared}", [first], ""),
            (f"search {len(names):,} random, {compared}", _times(photos.search, again), ""),
        ]
    return rows


def _real(folder: Path, drawn: Drawn, repeats: int) -> str:
    """Compare a question to a new photograph with the detector's forward pass alone."""
    (photo, *_), one, shards = find_images(drawn.photos), folder / "one", folder / "real"
    one.mkdir()
    (one / photo.path.name).symlink_to(photo.path)
    extract(one, shards, ExtractSettings(detector="untrained", device="cpu"))
    config = SemVLPConfig.preset("base")
    checkpoint = _checkpoint(folder / "base", config, read_manifest(shards), "pooled", ANSWERS)
    vlp = semvlp.load(checkpoint, device="cpu", detector="untrained")
    detector: Any = vlp.eyes.detector
    count = len(vlp.regions(photo))
    detect, forwards = detector.detect, []

    def timed(images: Any) -> Any:
        start = time.process_time()
        proposals = detect(images)
        forwards.append(time.process_time() - start)
        return proposals

    # Inside of the same call: a busy machine changes its speed from one to the next.
    detector.detect = timed
    whole = _times(lambda photo: vlp.ask(photo, QUESTION), [photo] * (repeats + 1))
    pairs = zip(whole, forwards[1:], strict=True)
    ratio, forward = statistics.median(a / b for a, b in pairs), statistics.median(forwards[1:])
    return (
        f"A question to a new photograph, base network, {count} regions, both "
        f"passes: {ratio:.3f} times the detector's forward pass of {forward:.1f} s (aim: 1.05)."
    )


class _Names:
    """As much of a store as a search needs of photographs that it does not show."""

    def __init__(self, image_ids: Sequence[str]) -> None:
        self.image_ids = image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def name(self, index: int) -> str:
        return self.image_ids[index]

    def close(self) -> None:
        """There is nothing to close."""


class _Random(KeptRows):
    """Rows of random numbers, in files as kept ones are."""

    def __init__(self, vlp: Assistant, manifest: Manifest, folder: Path, count: int) -> None:
        folder.mkdir()
        self._network, self._vocabulary = vlp.network, label_words(manifest)
        random, width = np.random.default_rng(0), vlp.network.model.config.hidden_size
        self._blocks = []
        for start in range(0, count, BLOCK):
            number, regions = min(BLOCK, count - start), vlp.network.limits.max_regions
            rows = random.standard_normal((number, regions, width), np.float32).astype(np.float16)
            # Each photograph has about as many words as regions, each of them once.
            size = min(regions, len(self._vocabulary))
            words = [random.permutation(len(self._vocabulary))[:size] for _ in range(number)]
            seen = SeenWords(
                np.full(number, size, np.int32),
                np.concatenate(words).astype(np.int32),
                random.random(number * size, np.float32),
            )
            path = folder / f"{start:09d}.safetensors"
            path.write_bytes(Block.of(list(rows), seen).to_bytes(KEY))
            self._blocks.append(Block.opened(path, KEY, number, width))


def _times(call: Callable[[Any], object], given: Sequence[Any]) -> list[float]:
    """Return the seconds of the processor that each call takes but the first, which warms up."""
    times = []
    for value in given:
        start = time.process_time()
        call(value)
        times.append(time.process_time() - start)
    return times[1:]


def _draw(folder: Path, scenes: int) -> Drawn:
    """Draw a world, extract its regions, and make checkpoints with random weights."""
    config = WorldConfig(towers=0, scatter=0, square=1, covered=0, nlvr=0, pairs=0, most_items=3)
    world = write_world(folder / "world", scenes={"train": scenes}, seed=0, config=config)
    shards = folder / "regions"
    extract(world.images("train"), shards, ExtractSettings(detector="demo", device="cpu"))
    manifest = read_manifest(shards)
    tiny = SemVLPConfig.preset("tiny", cross_attention="tied")
    asked = _checkpoint(folder / "asked", tiny, manifest, "pooled", ANSWERS, DRAWN_REGIONS)
    searching = _checkpoint(folder / "searching", tiny, manifest, "match", LABELS, DRAWN_REGIONS)
    return Drawn(world.images("train"), shards, asked, searching)


def _checkpoint(
    folder: Path,
    config: SemVLPConfig,
    manifest: Manifest,
    head: Any,
    labels: Sequence[str],
    regions: int | None = None,
) -> Path:
    tokenizer = train_wordpiece([QUESTION, TEXT, *labels], 1000)
    own = {
        "vocab_size": len(tokenizer),
        "region_feature_size": manifest.feature_size,
        "region_profile": manifest.extractor,
        "num_objects": len(manifest.object_labels),
        "num_attributes": len(manifest.attribute_labels),
    }
    SemVLPForTask(config.for_task(head, labels, **own)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if regions:
        (folder / "training").mkdir()
        (folder / "training" / "config.toml").write_text(f"[data]\nmax_regions = {regions}\n")
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=488)
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--loads", type=int, default=3)
    parser.add_argument(
        "--real", type=int, metavar="N", default=0, help="Rounds with a detector of real size."
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
