"""What is installed: told truly, and without ever failing on a broken package."""

import importlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from semvlp import __version__
from semvlp.doctor import NOT_INSTALLED, Fact, facts, versions


def by_name(found: list[Fact]) -> dict[str, Fact]:
    return {fact.name: fact for fact in found}


def break_import(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Importing `name` raises `error`, as a package does that was built for something else."""
    real = importlib.import_module

    def import_module(wanted: str, package: str | None = None) -> ModuleType:
        if wanted == name:
            raise error
        return real(wanted, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_this_machine_can_run_the_program() -> None:
    found = by_name(facts())
    for name in ("torch", "torchvision", "transformers", "lmdb", "webdataset"):
        assert found[name] == Fact(name, metadata.version(name))
    assert found["semvlp"].value == __version__
    assert found["Python"].ok
    assert found["CUDA"].value
    assert found["bf16"].value
    assert str(Path().resolve()) in found["free disk"].value


def test_the_extra_that_serve_needs_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name)
    )
    fact = by_name(facts())["serve"]
    assert (fact.ok, fact.value) == (True, "not installed: uvicorn")
    assert "pip install 'semvlp[serve]'" in fact.remedy


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("lmdb", OSError("liblmdb.so: cannot open shared object file")),
        ("transformers", ImportError("cannot import name 'x'")),
        ("torchvision", RuntimeError("operator torchvision::nms does not exist")),
        ("torch", OSError("libcudart.so.12: cannot open shared object file")),
        ("webdataset", ModuleNotFoundError("No module named 'braceexpand'", name="braceexpand")),
    ],
)
def test_a_broken_package_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    break_import(monkeypatch, name, error)
    found = by_name(facts())
    assert not found[name].ok
    assert found[name].value == f"{metadata.version(name)}, broken: {error}"
    assert "pip install" in found[name].remedy
    assert name in found[name].remedy


def test_a_broken_torch_leaves_no_fact_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [fact.name for fact in facts()]
    break_import(monkeypatch, "torch", OSError("libtorch.so"))
    broken = by_name(facts())
    assert list(broken) == names
    assert "torch is broken" in broken["CUDA"].value
    assert "torch is broken" in broken["bf16"].value
    assert not broken["torchvision"].ok


def test_torchvision_of_another_torch_is_found_by_running_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The import succeeds and the first compiled operator fails."""

    def nms(*arguments: Any) -> None:
        raise RuntimeError("Couldn't load custom C++ ops.\nThis can happen if ...")

    monkeypatch.setattr("torchvision.ops.nms", nms)
    fact = by_name(facts())["torchvision"]
    assert not fact.ok
    assert fact.value.endswith("broken: Couldn't load custom C++ ops.")
    assert f"must be built for torch {metadata.version('torch')}" in fact.remedy


def test_missing_detectron2_is_no_fault_and_names_its_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = ModuleNotFoundError("No module named 'detectron2'", name="detectron2")
    break_import(monkeypatch, "detectron2", missing)
    found = by_name(facts())
    assert found["detectron2"].ok
    assert found["detectron2"].value == NOT_INSTALLED
    assert "--no-build-isolation" in found["detectron2"].remedy
    assert found["backend"].value == "auto takes torchvision; detectron2 configs cannot be run"


def test_a_detectron2_of_another_torch_is_told_apart_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
    break_import(monkeypatch, "detectron2._C", ImportError("undefined symbol: _ZN3c10"))
    found = by_name(facts())
    assert not found["detectron2"].ok
    assert "undefined symbol" in found["detectron2"].value
    assert found["detectron2"].remedy.startswith("Build it for this torch.")
    assert found["backend"].value == "auto takes torchvision; detectron2 configs cannot be run"


def test_a_setuptools_too_new_for_detectron2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("detectron2", "detectron2._C"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    missing = ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources")
    break_import(monkeypatch, "detectron2.model_zoo", missing)
    found = by_name(facts())
    assert not found["detectron2"].ok
    assert found["detectron2"].remedy.startswith("pip install 'setuptools<81'")
    assert found["backend"].value == "auto takes torchvision; detectron2 configs cannot be run"


def test_detectron2_is_taken_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("detectron2", "detectron2._C", "detectron2.model_zoo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    found = by_name(facts())
    assert found["detectron2"].ok
    assert found["backend"].value == "auto takes torchvision; detectron2 for its configs"


def test_a_needed_package_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'lmdb'", name="lmdb")
    break_import(monkeypatch, "lmdb", missing)
    assert by_name(facts())["lmdb"] == Fact("lmdb", NOT_INSTALLED, False, "pip install lmdb")


def test_torch_of_another_numpy_is_found_by_running_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)

    def zeros(count: int) -> None:
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch, "zeros", zeros, raising=False)
    fact = by_name(facts())["torch"]
    assert (fact.ok, "Numpy is not available" in fact.value) == (False, True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("can", "told"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "yes: this CPU has avx512_bf16,"),
        ({"avx512_bf16": True, "amx_bf16": True}, "yes: this CPU has avx512_bf16 and amx_bf16,"),
        ({"avx512_bf16": False}, "slow: use fp32"),
        ({}, "slow: use fp32"),
    ],
)
def test_bf16_is_for_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, can: dict[str, bool], told: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert told in by_name(facts())["bf16"].value
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert "slow" in by_name(facts())["bf16"].value


def test_little_disk_space_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = type("usage", (), {"free": 3_000_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    fact = by_name(facts(tmp_path))["free disk"]
    assert (fact.ok, fact.value) == (False, f"3 GB at {tmp_path}")
    assert "0.41 MB" in fact.remedy


def test_versions_name_what_the_numbers_depend_on() -> None:
    found = versions()
    assert list(found) == ["semvlp", "Python", "torch", "transformers", "detectron2", "CUDA"]
    assert found["torch"] == metadata.version("torch")
