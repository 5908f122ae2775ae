"""What is said where detectron2 cannot be imported, and how it is built."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.doctor import SOURCE, without_detectron2
from semvlp.errors import ConfigError
from semvlp.extract.detectors.zoo import load_detector
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import open_learner

DOCS = Path(__file__).parents[2] / "docs"


def extract() -> None:
    load_detector("butd", backend="detectron2", device="cpu")


def train() -> None:
    open_learner(DetectorTrainConfig(network="butd"), None, "detectron2")


def test_what_detectron2_misses_is_told_apart() -> None:
    zoo = ModuleNotFoundError("no pkg_resources", name="pkg_resources")
    assert "pip install 'setuptools<81'" in str(without_detectron2(zoo, "--detector butd"))
    missing = ModuleNotFoundError("no detectron2", name="detectron2")
    told = str(without_detectron2(missing, "--detector butd"))
    assert told.startswith("--detector butd needs detectron2, which is not installed.")
    assert SOURCE in told


@pytest.mark.parametrize("command", [extract, train])
@pytest.mark.parametrize(
    "problem",
    [
        "ImportError('_C.so: undefined symbol: _ZN3c10')",
        "ModuleNotFoundError('No module named fvcore', name='fvcore')",
        "OSError('libcudart.so.12: cannot open shared object file')",
    ],
)
def test_a_detectron2_that_is_broken_is_one_error_that_names_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[], None], problem: str
) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {problem}")
    monkeypatch.syspath_prepend(tmp_path)
    # Where one is installed, tests before this one may have imported it.
    for name in list(sys.modules):
        if {"detectron2", "on_detectron2"} & set(name.split(".")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as refused:
        command()
    told = str(refused.value)
    assert "needs detectron2, which is there but cannot be imported (" in told
    assert problem.split("'")[1] in told
    assert "`semvlp doctor`" in told


@pytest.mark.parametrize("page", ["extract.md", "data.md"])
def test_the_docs_build_the_same_detectron2(page: str) -> None:
    assert f"'{SOURCE}'" in (DOCS / page).read_text()
