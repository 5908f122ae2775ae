"""Reading detectron2 configs: nothing in them is run, what is wrong is one error."""

from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import ConfigError
from semvlp.extract.detectors.published import numbered, object_labels
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.weights.checkpoint import Description, save_detector

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

COCO = '("coco_2017_train",)', '("coco_2017_val",)'


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("through", ["the config", "its base"])
def test_a_tag_that_names_code_is_refused_and_not_run(tmp_path: Path, through: str) -> None:
    trace = tmp_path / "code was run"
    code = f"!!python/object/apply:os.mkdir ['{trace}']"
    evil = write(tmp_path / "evil.yaml", f"MODEL: {{WEIGHTS: {code}}}")
    if through == "its base":
        evil = write(tmp_path / "child.yaml", "_BASE_: evil.yaml")
    with pytest.raises(ConfigError, match=rf"^{evil}: must be .* plain YAML.*evil\.yaml"):
        load_detector(evil, device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {ATTRIBUTE_ON: true}", r"MODEL\.ATTRIBUTE_ON"),
        ("MODEL: {WEIGHTS: [1", "expected ',' or ']'.*line 1"),
        ("MODEL: 5", "int"),
        ("INPUT: {MIN_SIZE_TEST: wide}", r"INPUT\.MIN_SIZE_TEST"),
        ("- MODEL", "list"),
        ("_BASE_: gone.yaml", r"gone\.yaml"),
        ("_BASE_: network.yaml", "recursion"),
        ("", "NoneType"),
    ],
)
def test_a_config_that_is_none_is_one_error_that_names_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    from semvlp.extract.detectors.on_detectron2.cfg import read_config

    path = write(tmp_path / "network.yaml", text)
    with pytest.raises(ConfigError, match=rf"^{path}: must be a detectron2 config .*{message}"):
        read_config(path)


def test_the_config_inside_a_detector_is_read_as_strictly(tmp_path: Path) -> None:
    wrong = Description(detectron2="MODEL: {NONE: 1}", object_labels=("cup",), attribute_labels=())
    save_detector(tmp_path, {}, wrong)
    with pytest.raises(ConfigError, match=r"detector\.json: must be .* MODEL\.NONE"):
        load_detector(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("train", "test", "known"),
    [
        (*COCO, True),
        (COCO[0], "()", True),
        ('("my_train",)', '("my_val",)', False),
        ("()", "()", False),
        # Half of it is inherited from the base, and nobody knows which half is meant.
        (COCO[0], '("my_val",)', False),
        ('("my_train",)', COCO[1], False),
    ],
)
def test_classes_have_cocos_names_only_where_the_data_sets_are_coco(
    tmp_path: Path, train: str, test: str, known: bool
) -> None:
    from semvlp.extract.detectors.on_detectron2.cfg import labels_of, read_config, set_keys

    text = f"DATASETS: {{TRAIN: '{train}', TEST: '{test}'}}"
    cfg = read_config(write(tmp_path / "network.yaml", text))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == len(object_labels(80)) == 80
    assert labels_of(cfg) == (object_labels(80) if known else numbered("object", 80))
    set_keys(cfg, ["MODEL.ROI_HEADS.NUM_CLASSES=5"])
    assert labels_of(cfg) == numbered("object", 5)


@pytest.mark.parametrize("setting", ["INPUT.MIN_SIZE_TEST.X.Y=1", "MODEL.WEIGHTS.X=1"])
def test_a_key_below_a_value_is_refused(setting: str) -> None:
    from semvlp.extract.detectors.on_detectron2.cfg import read_config, set_keys

    cfg: Any = read_config("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml")
    with pytest.raises(ConfigError, match=rf"--set {setting}: must be KEY=value"):
        set_keys(cfg, [setting])
