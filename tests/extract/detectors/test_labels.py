"""Names given to a detector that has numbers."""

from pathlib import Path

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Detector
from semvlp.extract.detectors.published import name_labels
from semvlp.extract.detectors.zoo import load_detector


@pytest.fixture
def detector() -> Detector:
    return load_detector("demo", device="cpu")


def write(path: Path, count: int) -> Path:
    path.write_text("".join(f"name {index},synonym\n" for index in range(count)))
    return path


def test_names_replace_numbers_and_shape_nothing(tmp_path: Path, detector: Detector) -> None:
    objects = write(tmp_path / "objects.txt", len(detector.object_labels))
    attributes = write(tmp_path / "attributes.txt", len(detector.attribute_labels))
    before = dict(detector.profile)
    name_labels(detector, [objects])
    assert detector.object_labels[1] == "name 1,synonym"
    assert "yellow" in detector.attribute_labels
    name_labels(detector, [objects, attributes])
    assert detector.attribute_labels[0] == "name 0,synonym"
    assert detector.profile == before


def test_every_label_needs_its_name(tmp_path: Path, detector: Detector) -> None:
    count = len(detector.object_labels)
    with pytest.raises(InputError, match=rf"must name the {count} object .* found {count + 1}"):
        name_labels(detector, [write(tmp_path / "objects.txt", count + 1)])
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        name_labels(detector, [tmp_path / "none.txt"])
    with pytest.raises(ConfigError, match="one file of object classes and one of attributes"):
        name_labels(detector, [tmp_path / "a"] * 3)
