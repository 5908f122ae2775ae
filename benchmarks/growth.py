"""CPU time and memory of what is done once for a whole data set, by the number of its images.

    python benchmarks/growth.py --folder FOLDER --sizes 1000 10000 100000

writes data sets of tiny regions and everyday captions, runs every stage in a process of its own,
and prints its CPU seconds (its children's too) and the most memory that it, or a child, held.
The line `fixed + images x slope` is fitted by least squares and told for ten million images; the
power is the slope of the two largest sizes in logarithms, above what the smallest takes: 1 is
linear, 2 is quadratic. Memory is what was resident at most, mapped files among it, which processes
share and the system takes back. Data sets that are there already are used again.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROJECTED = 10_000_000
REGIONS, FEATURES = 2, 8
CAPTIONS = 5
IMAGES_PER_SHARD = 1000
SIZES = (1_000, 10_000, 100_000)
SUBJECTS = [
    "man",
    "woman",
    "child",
    "dog",
    "cat",
    "horse",
    "bus",
    "train",
    "bicycle",
    "pizza",
    "kite",
    "boat",
    "girl",
    "zebra",
]
LOOKS = [
    "red",
    "old",
    "small",
    "wooden",
    "striped",
    "wet",
    "young",
    "bright",
    "broken",
    "yellow",
    "quiet",
    "large",
]
DOINGS = ["stands", "sits", "waits", "runs", "sleeps", "leans", "rests", "jumps", "walks", "plays"]
PLACES = [
    "street",
    "beach",
    "table",
    "river",
    "field",
    "bench",
    "garden",
    "station",
    "kitchen",
    "hill",
    "bridge",
    "snow",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, help="for the data sets; else a temporary one")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=[*STAGES, "write"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        rows = {stage: [] for stage in options.stages}
        for size in options.sizes:
            data = folder / str(size)
            if not (data / "shards" / "manifest.json").exists():
                data.mkdir(parents=True, exist_ok=True)
                measured("write", data)
            for stage in options.stages:
                rows[stage].append(measured(stage, data))
                print(json.dumps({"stage": stage, "images": size, **rows[stage][-1]}), flush=True)
    print_table(options.sizes, rows)


def measured(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in a process of its own, and return its cost."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_stage(stage: str, folder: Path) -> None:
    """Do it here, and print what it took."""
    if stage == "write":
        write(folder)
        print("{}")
        return
    prepare, work = STAGES[stage]
    argument = prepare(folder)
    before = _cpu()
    work(folder, argument)
    print(json.dumps({"seconds": round(_cpu() - before, 3), **_memory()}))


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _memory() -> dict[str, float]:
    """Return the most MiB that this process had at once, mapped files included, or a child had."""
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])  # ru_maxrss begins with that of the parent
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"mib": round(own / 1024, 1), "child_mib": round(children / 1024, 1)}


# The stages: what is loaded before, and what is measured. Imports are no part of it.


def import_shards(folder: Path) -> None:
    import semvlp.shards.maintenance.convert
    import semvlp.shards.maintenance.verify
    import semvlp.shards.stream.stream  # noqa: F401


def import_training(folder: Path) -> None:
    import semvlp.train.pretrain  # noqa: F401


def opened(folder: Path, _: Any) -> None:
    """Open a data set and the order of its epochs, and read a batch: each rank's plan."""
    from semvlp.shards.open import open_store
    from semvlp.shards.stream.stream import Stream

    with open_store(folder / "shards") as store:
        Stream([store], seed=0, batch_size=64).read(0)


def first_step(folder: Path, _: Any) -> None:
    """Pre-train one step: texts, vocabulary, answers, network, the reader's process."""
    from semvlp.train.config import ModelConfig, PretrainConfig
    from semvlp.train.pretrain import pretrain
    from semvlp.train.train_config import TrainConfig

    config = PretrainConfig(
        model=ModelConfig(preset="tiny"),
        train=TrainConfig(steps=1, save_every=1, batch_size=32, device="cpu", threads=1),
    )
    with tempfile.TemporaryDirectory() as out:
        pretrain([folder / "shards"], Path(out), config)


def joined(folder: Path, _: Any) -> None:
    from semvlp.shards.maintenance.convert import join

    with tempfile.TemporaryDirectory(dir=folder) as out:
        join(folder / "shards", [folder / "texts.jsonl"], Path(out) / "joined")


def matched(folder: Path, _: Any) -> None:
    """Read a file of texts and find the image of each."""
    from semvlp.shards.open import open_store
    from semvlp.shards.texts.texts import read_matched

    with open_store(folder / "shards") as store:
        read_matched([folder / "texts.jsonl"], store.image_ids)


def gathered(folder: Path, _: Any) -> None:
    """Read COCO's captions, one JSON object."""
    from semvlp.shards.texts.texts import gather

    gather([folder / "captions.json"]).close()


def looked_up(folder: Path, _: Any) -> None:
    """Find images by their names, as every rank of a fine-tuning does."""
    from semvlp.shards.open import open_store
    from semvlp.shards.texts.image_ids import ImageIds

    with open_store(folder / "shards") as store:
        ids = ImageIds(store.image_ids)
        assert ids.find(f"COCO_train2014_{7:012d}.jpg")
        assert ids.find(12)


def verified(folder: Path, _: Any) -> None:
    from semvlp.shards.maintenance.verify import verify

    assert not verify(folder / "shards")


def write_captions(folder: Path) -> None:
    """Write captions of as many images as the folder is called, as COCO does, and load the rest."""
    import semvlp.shards.texts.texts  # noqa: F401

    path = folder / "captions.json"
    if path.exists():
        return
    random, images = np.random.default_rng(0), range(int(folder.name))
    with path.open("w") as file:
        file.write('{"images": [')
        for number in images:
            image = {"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg"}
            file.write(", " * bool(number) + json.dumps(image))
        file.write('], "annotations": [')
        for number in range(CAPTIONS * len(images)):
            caption = {"image_id": number // CAPTIONS, "id": number, "caption": sentence(random)}
            file.write(", " * bool(number) + json.dumps(caption))
        file.write("]}")


Stage = tuple[Callable[[Path], Any], Callable[[Path, Any], None]]
STAGES: dict[str, Stage] = {
    "first step": (import_training, first_step),
    "plan": (import_shards, opened),
    "join": (import_shards, joined),
    "match": (import_shards, matched),
    "COCO": (write_captions, gathered),
    "look up": (import_shards, looked_up),
    "verify": (import_shards, verified),
}


# The data.


def write(folder: Path) -> None:
    """Write as many images as the folder is called, and a file that speaks of each once more."""
    from semvlp.shards.dataset.plan import Plan
    from semvlp.shards.record import Regions, Sample, Texts
    from semvlp.shards.writer import open_writer

    count = int(folder.name)
    random = np.random.default_rng(0)
    plan = Plan(
        image_ids=tuple(f"COCO_train2014_{number:012d}" for number in range(count)),
        extractor={"network": "drawn"},
        object_labels=tuple(f"object {number}" for number in range(8)),
        attribute_labels=tuple(f"attribute {number}" for number in range(8)),
        feature_size=FEATURES,
        samples_per_shard=IMAGES_PER_SHARD,
    )
    boxes = np.tile(np.array([[1, 2, 300, 400]], np.float32), (REGIONS, 1))
    with (
        open_writer(folder / "shards", plan, format="tar") as writer,
        (folder / "texts.jsonl").open("w") as texts,
    ):
        for number, image_id in enumerate(plan.image_ids):
            regions = Regions(
                image_id=image_id,
                width=640,
                height=480,
                boxes=boxes,
                proposals=boxes,
                features=random.random((REGIONS, FEATURES)).astype(np.float16),
                object_ids=np.zeros(REGIONS, np.int16),
                object_conf=np.ones(REGIONS, np.float16),
                attribute_ids=np.zeros(REGIONS, np.int16),
                attribute_conf=np.ones(REGIONS, np.float16),
                profile=plan.profile,
            )
            captions = [sentence(random) for _ in range(2 * CAPTIONS)]
            texts.write(json.dumps({"image_id": number, "captions": captions[CAPTIONS:]}) + "\n")
            own = Texts(captions=tuple(captions[:CAPTIONS]))
            writer.write(Sample(key=image_id, regions=regions, texts=own))
        writer.finish()


def sentence(random: np.random.Generator) -> str:
    """Draw a caption of some ten words; one in 200 has a number or a name nobody else has."""
    a, b, c, d, e = random.integers(0, 10_000, 5).tolist()
    rare = f" number {a}{b}" if c % 200 == 0 else ""
    return (
        f"A {LOOKS[a % 12]} {SUBJECTS[b % 14]}{rare} {DOINGS[c % 10]} near the "
        f"{LOOKS[d % 11]} {PLACES[e % 12]}, beside a {SUBJECTS[c % 14]}."
    )


# The table.


def print_table(sizes: Sequence[int], rows: dict[str, list[dict[str, float]]]) -> None:
    few = " | ".join(f"{size:,}" for size in sizes)
    print(f"\n| stage | figure | {few} | a million more | power | at {PROJECTED:,} |")
    print("| --- | --- |" + " ---: |" * (len(sizes) + 3))
    for stage, costs in rows.items():
        for figure, name in (("seconds", "CPU s"), ("mib", "MiB"), ("child_mib", "child MiB")):
            values = [cost[figure] for cost in costs]
            if figure == "child_mib" and not any(values):
                continue
            slope, fixed = np.polyfit(sizes, values, 1) if len(sizes) > 1 else (0.0, values[0])
            shown = " | ".join(f"{value:,.1f}" for value in values)
            power, whole = power_of(sizes, values), fixed + slope * PROJECTED
            print(f"| {stage} | {name} | {shown} | {slope * 1e6:,.1f} | {power} | {whole:,.0f} |")


def power_of(sizes: Sequence[int], values: Sequence[float]) -> str:
    """Return the slope in logarithms of what the two largest sizes take above the smallest."""
    above = [value - values[0] for value in values[-2:]]
    if len(sizes) < 3 or min(above) <= 0:
        return "-"
    return f"{math.log(above[1] / above[0]) / math.log(sizes[-1] / sizes[-2]):.2f}"


if __name__ == "__main__":
    main()
