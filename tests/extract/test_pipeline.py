"""Images to shards: in order, resumable to the byte, one lost image never losing its neighbours."""

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from semvlp import __version__
from semvlp.errors import ConfigError, InputError
from semvlp.extract import batching, inference
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.find import find_images, load
from semvlp.extract.images.resize import Resized
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.select import select
from semvlp.shards import writer
from semvlp.shards.codec import encode
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.maintenance.convert import convert, join
from semvlp.shards.open import open_store
from semvlp.shards.record import Sample, key_of
from tests.extract.fake_detector import FakeDetector, stop_at
from tests.extract.numbered_images import (
    SETTINGS,
    damage,
    draw,
    refusals,
    run,
    shard_bytes,
    stored,
)


def test_every_image_is_stored_as_its_own_selection(images: Path, tmp_path: Path) -> None:
    report = run(images, tmp_path / "out", min_regions=5, max_regions=9)
    assert (report.written, report.refused, report.processed) == (11, 0, 11)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.object_labels == FakeDetector.object_labels
    assert manifest.attribute_labels == FakeDetector.attribute_labels
    assert manifest.extractor["detector"] == "fake"
    assert manifest.extractor["selection"]["max_regions"] == 9
    files = find_images(images)
    with open_store(tmp_path / "out") as store:
        assert list(store.image_ids) == [file.image_id for file in files]
        for index, file in enumerate(files):
            expected = select(
                FakeDetector()([load(file)])[0],
                image_id=file.image_id,
                min_regions=5,
                max_regions=9,
                profile=manifest.profile,
            )
            wanted = encode(Sample(key=file.image_id, regions=expected))
            assert encode(store.sample(index)) == wanted


def test_batches_and_threads_change_no_byte(images: Path, tmp_path: Path) -> None:
    detector = FakeDetector()
    detector.images_per_pass = 8
    run(images, tmp_path / "a", detector, batch_size=1, workers=1)
    assert set(detector.batches) == {1}
    run(images, tmp_path / "b", detector, batch_size=7, workers=3)
    assert max(detector.batches) == 2, "four images of three shapes"
    assert len(shard_bytes(tmp_path / "a")) > 2
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")


@pytest.mark.parametrize("format", ["tar", "lmdb"])
@pytest.mark.parametrize("number", [0, 1, 5, 8, 10])
def test_interrupted_and_resumed_equals_uninterrupted(
    images: Path, tmp_path: Path, number: int, format: str
) -> None:
    damage(images, 4, 9)
    options = {"format": format, "max_bad": 1.0}
    run(images, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", FakeDetector(stop_at(number, KeyboardInterrupt())), **options)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    report = run(images, tmp_path / "cut", **options)
    assert shard_bytes(tmp_path / "cut") == shard_bytes(tmp_path / "whole")
    assert stored(tmp_path / "cut") == stored(tmp_path / "whole")
    assert refusals(tmp_path / "cut") == refusals(tmp_path / "whole")
    assert report.processed == 11 - number, "everything before the stop is kept"


@pytest.mark.parametrize("backend", ["torchvision", "detectron2"])
def test_the_manifest_names_what_shaped_the_numbers(
    images: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions take no part in the profile."""
    monkeypatch.setattr(writer, "version", lambda package: f"{package} 9")
    detector = FakeDetector()
    detector.profile["backend"] = backend
    run(images, tmp_path / "out", detector)
    manifest = read_manifest(tmp_path / "out")
    software = dict(manifest.software)
    assert software.pop("semvlp") == __version__
    assert software.pop("python") == platform.python_version()
    used = {"numpy", "torch", "torchvision", "pillow"} | ({backend} - {"torchvision"})
    assert software == {package: f"{package} 9" for package in used}
    assert "software" not in manifest.extractor


def test_a_finished_extraction_is_not_done_again(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out")
    before = shard_bytes(tmp_path / "out")
    detector = FakeDetector()
    report = run(images, tmp_path / "out", detector)
    assert (report.written, report.processed, detector.batches) == (11, 0, [])
    assert shard_bytes(tmp_path / "out") == before


def test_other_settings_need_overwrite(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out")
    with pytest.raises(ConfigError, match="--overwrite"):
        run(images, tmp_path / "out", preset="butd_10_100")
    run(images, tmp_path / "out", preset="butd_10_100", overwrite=True)
    assert read_manifest(tmp_path / "out").extractor["selection"]["min_regions"] == 10


def captions(path: Path, names: Sequence[str]) -> Path:
    entries = [{"image_id": name, "captions": [f"a photo of {name}"]} for name in names]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_texts_are_joined_and_the_unmatched_counted(images: Path, tmp_path: Path) -> None:
    texts = captions(tmp_path / "captions.jsonl", ["im003.png", "im007", "other"])
    report = run(images, tmp_path / "out", texts=(texts,))
    assert report.unmatched_texts == 1
    with open_store(tmp_path / "out") as store:
        found = {name: store.texts(store.index_of(name)).captions for name in store.image_ids}
    assert found["im003"] == ("a photo of im003.png",)
    assert found["im007"] == ("a photo of im007",)
    assert sum(map(len, found.values())) == 2


def test_texts_for_a_finished_extraction_are_a_matter_of_join(images: Path, tmp_path: Path) -> None:
    texts = captions(tmp_path / "captions.jsonl", ["im003.png"])
    run(images, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"`semvlp shards join .*out --texts FILE --out DIR`"):
        run(images, tmp_path / "out", texts=(texts,))


def test_texts_of_other_images_only_are_an_error(images: Path, tmp_path: Path) -> None:
    texts = captions(tmp_path / "captions.jsonl", ["elsewhere"])
    with pytest.raises(InputError, match=r"none of the 1 image names.*'elsewhere'.*'im000'"):
        run(images, tmp_path / "out", texts=(texts,))
    assert not (tmp_path / "out").exists()


def test_double_ids_stop_before_any_work(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(images / "im003.jpg")
    detector = FakeDetector()
    with pytest.raises(InputError, match="1 repeat one"):
        run(images, tmp_path / "out", detector)
    assert detector.batches == []
    assert not (tmp_path / "out").exists()


def test_source_folders_are_not_written_into(images: Path, tmp_path: Path) -> None:
    package = tmp_path / "shards"
    package.mkdir()
    (package / "__init__.py").touch()
    with pytest.raises(ConfigError, match="--out"):
        run(images, package)
    assert [path.name for path in package.iterdir()] == ["__init__.py"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out must be a directory"):
        run(images, tmp_path / "file")


@pytest.mark.parametrize(("most", "window"), [(1, 1), (2, 6), (2, 128)])
def test_few_images_are_in_memory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, window: int
) -> None:
    """However many there are: those of a window that found no partner, and what is prepared."""
    loaded: list[str] = []

    def counted(file: Any) -> Any:
        loaded.append(file.image_id)
        return load(file)

    waiting: list[int] = []

    class Watching(FakeDetector):
        images_per_pass = most

        def detect(self, images: Sequence[Resized]) -> list[Proposals]:
            waiting.append(len(loaded) - sum(self.batches))
            return super().detect(images)

    monkeypatch.setattr(inference, "load", counted)
    monkeypatch.setattr(batching, "_WINDOW", window)
    # Three shapes: two images at most wait for a third of theirs, one of each other shape.
    run(draw(tmp_path / "many", 60), tmp_path / "out", Watching(), samples_per_shard=60)
    assert len(loaded) == 60
    assert max(waiting) <= min(window, 3 * most) + most + SETTINGS.workers + 1


def test_the_preview_is_written_beside_the_shards(images: Path, tmp_path: Path) -> None:
    report = run(images, tmp_path / "out", preview=2)
    assert report.preview == tmp_path / "out" / "preview.html"
    assert report.preview.read_text().count("<article") == 2


def test_the_report_says_what_happened_in_one_sentence(images: Path, tmp_path: Path) -> None:
    damage(images, 1)
    report = run(images, tmp_path / "out", max_bad=0.1)
    sentence, out = report.sentence(), tmp_path / "out"
    reason = "1 not an image in one of the formats BMP, GIF, JPEG, "
    assert sentence.startswith(f"{out} holds the regions of 10 images, 1 refused ({reason}")
    assert "); this run took 11 of them in" in sentence
    assert json.loads(json.dumps(report.values()))["written"] == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"workers": 0},
        {"samples_per_shard": 0},
        {"max_bad": 1.5},
        {"preview": -1},
        {"preset": "best"},
        {"min_regions": 50, "max_regions": 40},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be|is a fraction|must satisfy"):
        ExtractSettings(**wrong)


@pytest.mark.parametrize(("began", "native"), [("fp32", True), ("bf16", False)])
def test_automatic_precision_is_what_the_data_set_was_begun_with(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: str, native: bool
) -> None:
    """On a machine that would have chosen otherwise."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    chosen = ExtractSettings(detector="demo", device="cpu", precision="auto")
    out, own = tmp_path / "shards", "bf16" if native else "fp32"

    def precision_of(settings: ExtractSettings) -> str:
        extract(images, out, settings)
        return read_manifest(out).extractor["precision"]

    assert precision_of(replace(chosen, precision=began)) == began
    assert precision_of(chosen) == began
    assert precision_of(replace(chosen, overwrite=True)) == own


def test_half_a_character_in_a_caption_ends_no_extraction(images: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"image_id": "im003", "captions": ["\\ud800", "a cat"]}')
    assert run(images, tmp_path / "out", texts=(texts,)).refused == 0
    with open_store(tmp_path / "out") as store:
        assert store.sample(3).texts.captions == ("a cat",)


def test_a_record_keeps_the_name_that_its_key_does_not_spell(images: Path, tmp_path: Path) -> None:
    (images / "im003.png").rename(images / "my photo.v2.png")
    run(images, tmp_path / "out")
    caption = tmp_path / "texts.tsv"
    caption.write_text("my photo.v2.png\ta cat\n")
    convert(tmp_path / "out", tmp_path / "converted", to="lmdb")
    join(tmp_path / "converted", [caption], tmp_path / "joined")
    key = key_of("my photo.v2")
    for folder in ("out", "converted", "joined"):
        with open_store(tmp_path / folder) as store:
            sample = store.sample(store.index_of(key))
            assert (sample.key, sample.name) == (key, "my photo.v2")
            assert store.name(store.index_of(key)) == "my photo.v2"
            assert [store.sample(index).name for index in range(3)] == [""] * 3
    assert sample.texts.captions == ("a cat",)


def test_a_plan_of_version_0_1_goes_on_under_its_keys(images: Path, tmp_path: Path) -> None:
    """Version 0.1 wrote `my_photo` for `my photo.png`."""
    names = ("my_photo.png", "an_other.png")
    for old, name in zip(("im003.png", "im007.png"), names, strict=True):
        (images / old).rename(images / name)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "out", FakeDetector(stop_at(5, KeyboardInterrupt())))
    plan = (tmp_path / "out" / "plan.json").read_bytes()
    for name in names:
        (images / name).rename(images / name.replace("_", " "))
    assert run(images, tmp_path / "out").written == 11
    assert (tmp_path / "out" / "plan.json").read_bytes() == plan
    with open_store(tmp_path / "out") as store:
        assert {"my_photo", "an_other"} <= set(store.image_ids)
