"""What is said where detectron2 cannot be imported, and how it is built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semvlp.doctor import SOURCE, without_detectron2

DOCS = Path(__file__).parents[2] / "docs"
EXTRACT = """
from semvlp.extract.detectors.zoo import load_detector
load_detector("butd", backend="detectron2", device="cpu")
"""
TRAIN = """
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import open_learner
open_learner(DetectorTrainConfig(network="butd"), None, "detectron2")
"""


def test_what_detectron2_misses_is_told_apart() -> None:
    zoo = ModuleNotFoundError("no pkg_resources", name="pkg_resources")
    assert "pip install 'setuptools<81'" in str(without_detectron2(zoo, "--detector butd"))
    missing = ModuleNotFoundError("no detectron2", name="detectron2")
    told = str(without_detectron2(missing, "--detector butd"))
    assert told.startswith("--detector butd needs detectron2, which is not installed.")
    assert SOURCE in told


@pytest.mark.parametrize("code", [EXTRACT, TRAIN], ids=["extract", "train"])
@pytest.mark.parametrize(
    "problem",
    [
        "ImportError('_C.so: undefined symbol: _ZN3c10')",
        "ModuleNotFoundError('No module named fvcore', name='fvcore')",
        "OSError('libcudart.so.12: cannot open shared object file')",
    ],
)
def test_a_detectron2_that_is_broken_is_one_error_that_names_the_doctor(
    tmp_path: Path, code: str, problem: str
) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {problem}")
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("semvlp.errors.ConfigError: ")
    assert "needs detectron2, which is there but cannot be imported (" in last
    assert problem.split("'")[1] in last
    assert "`semvlp doctor`" in last


@pytest.mark.parametrize("page", ["extract.md", "data.md"])
def test_the_docs_build_the_same_detectron2(page: str) -> None:
    assert f"'{SOURCE}'" in (DOCS / page).read_text()
