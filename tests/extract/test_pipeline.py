"""Images to shards: in order, resumable to the byte, one lost image never losing its neighbours."""

import json
import platform
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from semvlp import __version__
from semvlp.errors import ConfigError, InputError, SemVLPError, TooManyRefused
from semvlp.extract import batching, inference
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.find import find_images, load
from semvlp.extract.images.resize import Resized
from semvlp.extract.pipeline import ExtractReport, ExtractSettings, extract
from semvlp.extract.select import select
from semvlp.shards import writer
from semvlp.shards.codec import encode
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.maintenance.convert import convert, join
from semvlp.shards.open import open_store
from semvlp.shards.record import Sample, key_of
from tests.extract.fake_detector import FakeDetector, stop_at

SETTINGS = ExtractSettings(workers=2, samples_per_shard=4)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven images of three shapes, each with its number in the first pixel."""
    return draw(tmp_path / "images", 11)


def draw(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (12 + number % 3, 16, 3))
        image[0, 0, 0] = number
        Image.fromarray(image.astype(np.uint8)).save(folder / f"im{number:03d}.png")
    return folder


def damage(images: Path, *numbers: int) -> None:
    for number in numbers:
        (images / f"im{number:03d}.png").write_bytes(b"not an image")


def stored(out: Path) -> list[tuple[bytes, bytes]]:
    """Both members of every sample."""
    with open_store(out) as store:
        return [encode(store.sample(index)) for index in range(len(store))]


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shard-*"))}


def refusals(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]


def run(
    images: Path, out: Path, detector: FakeDetector | None = None, **options: Any
) -> ExtractReport:
    return extract(images, out, replace(SETTINGS, **options), detector=detector or FakeDetector())


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


def test_a_damaged_image_costs_no_other(images: Path, tmp_path: Path) -> None:
    damage(images, 4)
    report = run(images, tmp_path / "out", max_bad=0.1)
    assert (report.written, report.refused) == (10, 1)
    (line,) = refusals(tmp_path / "out")
    assert line["id"] == "im004"
    assert line["file"] == str(images / "im004.png")
    assert line["reason"].startswith("not an image")
    with open_store(tmp_path / "out") as store:
        assert "im004" not in store
        assert "im003" in store
        assert "im005" in store


def test_too_many_refused_ends_the_finished_work_with_its_own_error(
    images: Path, tmp_path: Path
) -> None:
    damage(images, 2, 3)
    with pytest.raises(TooManyRefused, match=r"9 images, but 2 of 11 were refused.*refused\.jsonl"):
        run(images, tmp_path / "out")
    assert read_manifest(tmp_path / "out").counts["samples"] == 9
    with pytest.raises(TooManyRefused):
        run(images, tmp_path / "out")
    assert run(images, tmp_path / "out", max_bad=0.2).refused == 2


def test_an_image_the_detector_fails_on_is_refused_alone(images: Path, tmp_path: Path) -> None:
    detector = FakeDetector(stop_at(4, RuntimeError("no anchors fit")))
    detector.images_per_pass = 2
    report = run(images, tmp_path / "out", detector, max_bad=0.1, samples_per_shard=11)
    assert (report.written, report.refused) == (10, 1)
    (line,) = refusals(tmp_path / "out")
    assert line["id"] == "im004"
    assert line["reason"] == "the detector failed: RuntimeError: no anchors fit"
    assert detector.batches == [2, 2, 1, 1, 2, 2, 2, 1], "only the failed pass is taken apart"


def test_a_detector_that_never_works_is_an_error_and_refuses_nothing(
    images: Path, tmp_path: Path
) -> None:
    def broken(number: int) -> None:
        raise RuntimeError("CUDA error")

    for count in (11, 2):
        few = draw(tmp_path / f"few{count}", count)
        with pytest.raises(SemVLPError, match=r"seems to be broken.*im000.png.*CUDA error"):
            run(few, tmp_path / f"out{count}", FakeDetector(broken))
        assert run(few, tmp_path / f"out{count}").refused == 0


def test_a_detector_that_breaks_later_refuses_nothing_either(tmp_path: Path) -> None:
    def breaks(number: int) -> None:
        if number >= 7:
            raise RuntimeError("device lost")

    many = draw(tmp_path / "many", 80)
    with pytest.raises(SemVLPError, match="failed on 64 images in a row"):
        run(many, tmp_path / "out", FakeDetector(breaks))
    assert refusals(tmp_path / "out") == []
    report = run(many, tmp_path / "out")
    assert (report.written, report.refused, report.processed) == (80, 0, 73)


def test_the_last_image_may_be_the_bad_one_of_a_resumed_run(images: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "out", FakeDetector(stop_at(10, KeyboardInterrupt())), batch_size=1)
    bad = FakeDetector(stop_at(10, RuntimeError("bad")))
    assert run(images, tmp_path / "out", bad, max_bad=0.1, batch_size=1).refused == 1


def test_a_defect_is_never_taken_for_a_bad_image(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="defect"):
        run(images, tmp_path / "out", FakeDetector(stop_at(4, TypeError("defect"))))
    assert run(images, tmp_path / "out").refused == 0


def test_numbers_the_store_cannot_hold_are_refused(images: Path, tmp_path: Path) -> None:
    class Large(FakeDetector):
        def propose(self, image: NDArray[np.uint8]) -> Proposals:
            found = super().propose(image)
            if image[0, 0, 0] == 6:
                found.features[:] = 1e6
            return found

    run(images, tmp_path / "out", Large(), max_bad=0.1)
    (line,) = refusals(tmp_path / "out")
    assert (line["id"], "65504" in line["reason"]) == ("im006", True)


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


def test_without_images_there_is_no_preview_and_still_too_many_were_refused(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(images, *range(11))
    with pytest.raises(TooManyRefused, match="11 of 11 were refused"):
        run(images, tmp_path / "out", preview=2)
    assert not (tmp_path / "out" / "preview.html").exists()
    assert "no preview: every image was refused" in caplog.text


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


def test_a_tar_cut_short_gives_what_it_holds_and_says_so(images: Path, tmp_path: Path) -> None:
    tar = tmp_path / "set.tar"
    with tarfile.open(tar, "w") as archive:
        for file in sorted(images.iterdir()):
            archive.add(file, file.name)
    places = [file.offset for file in find_images(tar)]
    tar.write_bytes(tar.read_bytes()[: places[8] + 100])
    for _ in range(2):
        with pytest.raises(TooManyRefused, match=r"holds 8 images, but 1 of 9 were refused"):
            run(tar, tmp_path / "out")
    (line,) = refusals(tmp_path / "out")
    assert line["file"] == str(tar)
    assert "what stands behind it in the file is lost" in line["reason"]
    report = run(tar, tmp_path / "out", max_bad=1)
    assert "8 images, 1 refused (1 not a readable, uncompressed tar)" in report.sentence()


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
