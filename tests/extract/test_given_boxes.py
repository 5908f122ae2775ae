"""Features of given boxes: exactly these, in their order, and what cannot be is refused by line."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.detectors.on_torchvision.backend import TorchvisionDetector, open_untrained
from semvlp.extract.images.find import find_images, load
from semvlp.extract.images.given import Given, given_boxes
from semvlp.extract.networks import SMALL
from semvlp.extract.pipeline import ExtractReport, ExtractSettings, extract
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions
from tests.extract.fake_detector import FakeDetector
from tests.extract.numbered_images import draw, refusals


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 16 pixels width and 12 to 14 height."""
    return draw(tmp_path_factory.mktemp("drawn") / "images", 4)


@pytest.fixture(scope="module")
def detector() -> TorchvisionDetector:
    return open_untrained(replace(SMALL, shorter_side=0, longer_side=0), Execution())


def run(images: Path, out: Path, boxes: Path, detector: Any, **options: Any) -> ExtractReport:
    settings = ExtractSettings(boxes=boxes, workers=1, max_bad=1.0, samples_per_shard=2)
    return extract(images, out, replace(settings, **options), detector=detector)


def write(path: Path, **boxes: Sequence[Sequence[float]]) -> Path:
    lines = [{"image": name, "boxes": each} for name, each in boxes.items()]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def stored(out: Path) -> dict[str, Regions]:
    with open_store(out) as store:
        return {store.image_ids[i]: store.sample(i).regions for i in range(len(store))}


def test_the_networks_own_proposals_given_back_are_equal_to_the_bit(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    own = {file.image_id: detector([load(file)])[0] for file in find_images(images)}
    boxes = {name: each.proposals.tolist()[::-1] for name, each in own.items()}
    run(images, tmp_path / "out", write(tmp_path / "boxes.jsonl", **boxes), detector)
    for name, regions in stored(tmp_path / "out").items():
        wanted = own[name]
        np.testing.assert_array_equal(regions.boxes, wanted.proposals[::-1])
        np.testing.assert_array_equal(regions.proposals, wanted.proposals[::-1])
        scores = wanted.object_scores[::-1, :-1]
        np.testing.assert_array_equal(regions.object_ids, scores.argmax(1))
        np.testing.assert_array_equal(regions.object_conf, np.float16(scores.max(1)))
        # A sum over several regions at once may differ in its last bit with their order.
        np.testing.assert_allclose(
            regions.features.astype(float), wanted.features[::-1], rtol=1e-3, atol=1e-3
        )
    boxes = {name: each.proposals.tolist() for name, each in own.items()}
    run(images, tmp_path / "same", write(tmp_path / "same.jsonl", **boxes), detector)
    for name, regions in stored(tmp_path / "same").items():
        np.testing.assert_array_equal(regions.features, np.float16(own[name].features))


def test_boxes_are_brought_to_the_resized_image_and_stored_as_given(
    images: Path, tmp_path: Path
) -> None:
    doubled = open_untrained(replace(SMALL, shorter_side=24, longer_side=32), Execution())
    (image,) = [load(file) for file in find_images(images) if file.image_id == "im000"]
    own = doubled.detect([doubled.prepare(image)])[0]
    boxes = own.proposals.tolist()
    run(images, tmp_path / "out", write(tmp_path / "boxes.jsonl", im000=boxes), doubled)
    regions = stored(tmp_path / "out")["im000"]
    np.testing.assert_array_equal(regions.boxes, own.proposals)
    np.testing.assert_allclose(regions.features.astype(float), own.features, rtol=2e-3, atol=2e-3)


def test_detected_regions_come_behind(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    boxes = write(tmp_path / "boxes.jsonl", im001=[[2, 3, 9, 11], [1, 1, 4, 4]])
    options = {"min_regions": 5, "max_regions": 6}
    alone = extract(
        images, tmp_path / "alone", ExtractSettings(**options, workers=1), detector=detector
    )
    run(images, tmp_path / "both", boxes, detector, and_detected=True, **options)
    assert alone.written == 4
    plain, both = stored(tmp_path / "alone"), stored(tmp_path / "both")
    assert list(both) == list(plain)
    for name, regions in both.items():
        count = 2 if name == "im001" else 0
        np.testing.assert_array_equal(regions.boxes[count:], plain[name].boxes)
        np.testing.assert_array_equal(regions.object_ids[count:], plain[name].object_ids)
    np.testing.assert_array_equal(both["im001"].boxes[:2], [[2, 3, 9, 11], [1, 1, 4, 4]])
    assert "given_boxes" not in read_manifest(tmp_path / "alone").extractor["selection"]
    selection = read_manifest(tmp_path / "both").extractor["selection"]
    assert selection["given_boxes"] == "before the detector's"
    assert selection["max_regions"] == 6


def test_there_is_room_for_no_more_than_is_stored(images: Path, tmp_path: Path) -> None:
    boxes = [[1, 1, 2 + row / 10, 9] for row in range(98)]

    class Many(FakeDetector):
        def propose(self, image: NDArray[np.uint8]) -> Proposals:
            own = super().propose(image)
            rows = np.resize(np.arange(len(own.proposals)), 98 + 45)
            arrays = ("proposals", "boxes", "object_scores", "attribute_scores", "features")
            return replace(
                own,
                **{name: getattr(own, name)[rows] for name in arrays},
                given_classes=np.full(98, -1),
            )

    file = write(tmp_path / "boxes.jsonl", im000=boxes)
    run(images, tmp_path / "out", file, Many(), and_detected=True)
    assert len(stored(tmp_path / "out")["im000"]) == 100


def test_only_images_of_the_file_are_worked_on(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    boxes = write(tmp_path / "boxes.jsonl", **{"im002.png": [[1, 1, 5, 5]]})
    report = run(images, tmp_path / "out", boxes, detector)
    assert (report.written, report.refused, report.without_boxes) == (1, 0, 3)
    assert "3 more have no boxes in the file" in report.sentence()
    assert list(stored(tmp_path / "out")) == ["im002"]


def test_what_cannot_be_is_refused_by_line(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    good = [1, 1, 5, 5]
    boxes = write(
        tmp_path / "boxes.jsonl",
        im000=[good, [3, 3, 18, 9]],
        im001=[[4, 4, 4, 9]],
        im002=[good, [0, 0, 16.4, 14.9]],
        im003=[good] * 101,
        elsewhere=[good],
        **{"im000x": []},
    )
    report = run(images, tmp_path / "out", boxes, detector)
    assert (report.written, report.refused) == (1, 5)
    reasons = {line["id"]: line["reason"] for line in refusals(tmp_path / "out")}
    assert reasons == {
        "im000": f"{boxes}, line 1: box 2 (3, 3, 18, 9) reaches outside the photograph of "
        "16 x 12 pixels",
        "im001": f"{boxes}, line 2: box 1 (4, 4, 4, 9) has no area",
        "im003": f"{boxes}, line 4: 101 boxes, and 100 at most are stored",
        "elsewhere": f"{boxes}, line 5: no photograph has its name",
        "im000x": f"{boxes}, line 6: no photograph has its name",
    }
    # Rounding of less than a pixel is cut at the border.
    np.testing.assert_array_equal(stored(tmp_path / "out")["im002"].boxes[1], [0, 0, 16, 14])


@pytest.mark.parametrize("corner", [float("nan"), float("inf"), 1e300, -1e300])
def test_numbers_that_are_none_are_refused(corner: float) -> None:
    from semvlp.extract.images.boxes_file import _boxes
    from semvlp.extract.images.file import Refused

    given = Given(_boxes([[0, 0, corner, 5]], "x"), np.full(1, -1), False, "x")
    with pytest.raises(Refused, match="reaches outside"):
        given.inside(10, 10)
    with pytest.raises(Refused, match="gives no box"):
        given._replace(boxes=given.boxes[:0]).inside(10, 10)


def test_a_file_of_other_images_is_an_error(images: Path, tmp_path: Path) -> None:
    boxes = write(tmp_path / "boxes.jsonl", elsewhere=[[1, 1, 5, 5]])
    with pytest.raises(InputError, match="none of the 1 images it names"):
        run(images, tmp_path / "out", boxes, FakeDetector())
    assert not (tmp_path / "out").exists()
    twice = write(tmp_path / "twice.jsonl", im000=[], **{"im000.png": []})
    with pytest.raises(InputError, match=r"line 2: this image's boxes stand in .*line 1 too"):
        given_boxes(twice, find_images(images), and_detected=False)


def test_classes_are_the_files_where_the_detector_knows_them_all(
    images: Path, tmp_path: Path, detector: TorchvisionDetector, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"image": "im000", "boxes": [[1, 1, 5, 5], [2, 2, 9, 9]]}
    names = detector.object_labels
    for label, by in ((names[7], "file"), ("unicorn", "detector")):
        path = tmp_path / f"{by}.jsonl"
        path.write_text(json.dumps(entry | {"labels": [names[3], label]}))
        run(images, tmp_path / by, path, detector)
        assert read_manifest(tmp_path / by).extractor["selection"] == {
            "given_boxes": "alone",
            "classes_by": by,
        }
    known, own = stored(tmp_path / "file")["im000"], stored(tmp_path / "detector")["im000"]
    assert known.object_ids.tolist() == [3, 7]
    assert (known.object_conf <= own.object_conf).all()
    np.testing.assert_array_equal(known.features, own.features)
    assert "it has no class 'unicorn'" in caplog.text


def test_a_store_gives_its_boxes_again(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    extract(images, tmp_path / "first", ExtractSettings(workers=1), detector=detector)
    run(images, tmp_path / "again", tmp_path / "first", detector)
    first, again = stored(tmp_path / "first"), stored(tmp_path / "again")
    for name, regions in first.items():
        np.testing.assert_array_equal(regions.boxes, again[name].boxes)
        np.testing.assert_array_equal(regions.object_ids, again[name].object_ids)


def test_other_boxes_are_no_way_to_go_on_but_the_same_profile(
    images: Path, tmp_path: Path, detector: TorchvisionDetector
) -> None:
    one = write(tmp_path / "one.jsonl", im000=[[1, 1, 5, 5]])
    other = write(tmp_path / "other.jsonl", im000=[[1, 1, 5, 6]])
    run(images, tmp_path / "out", one, detector)
    assert run(images, tmp_path / "out", one, detector).processed == 0
    with pytest.raises(ConfigError, match="boxes_sha256 was"):
        run(images, tmp_path / "out", other, detector)
    settings = ExtractSettings(workers=1, samples_per_shard=2)
    with pytest.raises(ConfigError, match=r"begun with another plan: extractor\.selection"):
        extract(images, tmp_path / "out", settings, detector=detector)
    run(images, tmp_path / "second", other, detector)
    manifests = [read_manifest(tmp_path / name) for name in ("out", "second")]
    assert manifests[0].profile == manifests[1].profile
    assert manifests[0].boxes_sha256 != manifests[1].boxes_sha256


def test_a_detector_of_queries_cannot_describe_boxes(images: Path, tmp_path: Path) -> None:
    queries = FakeDetector()
    queries.describes_boxes = False
    with pytest.raises(ConfigError, match="--boxes: the states of this detector's queries"):
        run(images, tmp_path / "out", write(tmp_path / "x.jsonl", im000=[]), queries)


def test_settings_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="--and-detected adds to the boxes of a file"):
        ExtractSettings(and_detected=True)
    with pytest.raises(ConfigError, match="--and-detected adds"):
        ExtractSettings(boxes=Path("x"), preset="butd_36")
