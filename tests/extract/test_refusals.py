"""Images that cannot be read or detected on: each costs itself alone, and is written down."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from semvlp.errors import SemVLPError, TooManyRefused
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.find import find_images
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store
from tests.extract.fake_detector import FakeDetector, stop_at
from tests.extract.numbered_images import damage, draw, refusals, run


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


def test_without_images_there_is_no_preview_and_still_too_many_were_refused(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(images, *range(11))
    with pytest.raises(TooManyRefused, match="11 of 11 were refused"):
        run(images, tmp_path / "out", preview=2)
    assert not (tmp_path / "out" / "preview.html").exists()
    assert "no preview: every image was refused" in caplog.text


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
