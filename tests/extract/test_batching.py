"""Which images share a pass follows from the plan, wherever a run begins and whoever runs it."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semvlp.distributed import World
from semvlp.extract import batching, pipeline
from semvlp.extract.batching import passes, windows
from semvlp.extract.pipeline import ExtractSettings, extract
from tests.extract.fake_detector import FakeDetector, Rounding, stop_at

IMAGES, BAD = 23, (5, 14)
SETTINGS = ExtractSettings(workers=2, samples_per_shard=9, max_bad=1.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two shapes, each with its number in the first pixel, two of them damaged."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        image = np.random.default_rng(number).integers(0, 256, (12 + number * 7 % 5 % 2, 16, 3))
        image[0, 0, 0] = number
        Image.fromarray(image.astype(np.uint8)).save(folder / f"im{number:03d}.png")
    for number in BAD:
        (folder / f"im{number:03d}.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard holds a whole window and a part of one."""
    monkeypatch.setattr(batching, "_WINDOW", 6)


def written(out: Path) -> dict[str, bytes]:
    names = ("shard-*", "refused.jsonl")
    return {path.name: path.read_bytes() for name in names for path in out.glob(name)}


def run(images: Path, out: Path, detector: FakeDetector, **options: Any) -> dict[str, bytes]:
    extract(images, out, replace(SETTINGS, **options), detector=detector)
    return written(out)


@pytest.fixture
def whole(images: Path, tmp_path: Path, small_windows: None) -> dict[str, bytes]:
    """What one process writes that nobody stops."""
    detector = Rounding()
    content = run(images, tmp_path / "whole", detector)
    assert set(detector.batches) == {1, 2, 3}
    return content


@pytest.mark.parametrize("number", [n for n in range(IMAGES) if n not in BAD])
def test_stopped_at_any_image_the_passes_are_the_same(
    images: Path, tmp_path: Path, whole: dict[str, bytes], number: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", Rounding(stop_at(number, KeyboardInterrupt())))
    assert run(images, tmp_path / "cut", Rounding()) == whole


@pytest.mark.usefixtures("small_windows")
def test_a_failing_image_leaves_the_passes_as_they_are(images: Path, tmp_path: Path) -> None:
    """Those of its own pass are alone, whether it is refused in this run or was in an earlier."""

    def bad(number: int) -> None:
        stop_at(9, RuntimeError("bad"))(number)

    def stopped(number: int) -> None:
        bad(number)
        stop_at(13, KeyboardInterrupt())(number)

    expected = run(images, tmp_path / "whole", Rounding(bad))
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", Rounding(stopped))
    assert run(images, tmp_path / "cut", Rounding(bad)) == expected
    assert len(expected["refused.jsonl"].splitlines()) == len(BAD) + 1


@pytest.mark.usefixtures("small_windows")
def test_only_passes_with_something_to_do_are_run_again(images: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "out", Rounding(stop_at(22, KeyboardInterrupt())))
    detector = Rounding()
    run(images, tmp_path / "out", detector)
    assert sum(detector.batches) <= SETTINGS.samples_per_shard


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_makes_the_same_passes(
    images: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    barrier = threading.Barrier(size, timeout=300)

    class Thread(World):
        """A rank that is a thread."""

        def sum(self, values: Sequence[float]) -> list[float]:
            barrier.wait()
            return list(values)

    worlds = iter([nullcontext(Thread(rank, size)) for rank in range(size)])
    monkeypatch.setattr(pipeline, "joined", lambda *_, **__: next(worlds))
    detectors = [Rounding() for _ in range(size)]
    threads = [
        threading.Thread(target=run, args=(images, tmp_path / "out", detector))
        for detector in detectors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(detector.batches for detector in detectors)
    assert written(tmp_path / "out") == whole


@given(
    count=st.integers(0, 40),
    per_shard=st.integers(1, 15),
    most=st.integers(1, 4),
    shapes=st.lists(st.integers(0, 2), min_size=40, max_size=40),
)
def test_every_image_is_in_one_pass_of_its_shape_and_shard(
    count: int, per_shard: int, most: int, shapes: list[int]
) -> None:
    images = range(count)
    found = [
        each
        for window in windows(images, per_shard=per_shard, images_per_pass=most)
        for each in passes(window, shapes.__getitem__, most)
    ]
    assert sorted(image for each in found for image in each) == list(images)
    for each in found:
        assert 1 <= len(each) <= most
        assert len({(image // per_shard, shapes[image]) for image in each}) == 1
        assert each == sorted(each)


def test_images_of_equal_shape_find_each_other_among_many() -> None:
    """A dozen shapes in turn: looking at a pass of 8 alone, each image would be by itself."""
    (window,) = windows(range(96), per_shard=2000, images_per_pass=8)
    found = list(passes(window, lambda image: image % 12, 8))
    assert [len(each) for each in found] == [8] * 12
