"""The doctor: it tells what is installed, what will be used, what is missing and how to get it."""

import importlib
import importlib.util
import logging
import platform
import runpy
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType

from semvlp import __version__
from semvlp.errors import ConfigError
from semvlp.names import SERVE
from semvlp.progress import busy

SOURCE = (
    "git+https://github.com/facebookresearch/detectron2.git"
    "@02b5c4e295e990042a714712c21dc79b731e8833"
)
"""detectron2 in the state everything here was tried with: it is not on PyPI and has had no release
since 2021."""
BUILD = (
    "It is built from source: pip install 'setuptools<81', then pip install --no-build-isolation "
    f"'{SOURCE}'"
)
SETUPTOOLS = "pip install 'setuptools<81', because newer ones have no pkg_resources"
NOT_INSTALLED = "not installed"
MIN_FREE_GB = 10
log = logging.getLogger(__name__)

# What an import raises where a package is built for another Python, torch, CUDA or libc.
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError, SyntaxError)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at."""

    name: str
    value: str
    ok: bool = True
    remedy: str = ""
    """Advice where it is not ok, or where something optional is missing."""


def facts(folder: Path = Path()) -> list[Fact]:
    """Look at everything the program depends on; a broken package is a fact, never an exception.

    `folder` is where the disk space is looked at.
    """
    log.info("looking at what is installed; to load torch and what needs it takes some seconds")
    with busy("looking"):
        detectron2 = _detectron2()
        return [
            Fact("semvlp", __version__),
            _python(),
            _package("torch", try_out=_try_torch),
            _package("torchvision", try_out=_try_torchvision),
            _package("transformers"),
            _package("lmdb"),
            _package("webdataset"),
            _serve(),
            detectron2,
            _backend(detectron2),
            _cuda(),
            _bf16(),
            _disk(folder),
        ]


def versions() -> dict[str, str]:
    """Return the versions of semvlp and of what shapes its numbers, by name; nothing is loaded.

    Of CUDA it is the one that torch is built for, and where torch is loaded also the GPUs it sees.
    """
    packages = {name: _version(name) for name in ("torch", "transformers", "detectron2")}
    own = {"semvlp": __version__, "Python": platform.python_version()}
    return own | packages | {"CUDA": _cuda().value if "torch" in sys.modules else _built_cuda()}


def without_detectron2(error: ImportError | OSError, what: str) -> ConfigError:
    """Return what to say where the import of detectron2, which `what` needs, raised `error`.

    A compiled part that was built for another torch is an ImportError, a library that is not there
    an OSError.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else ""
    if missing == "pkg_resources":
        return ConfigError(f"{what} needs detectron2, whose model zoo needs more: {SETUPTOOLS}")
    if missing == "detectron2":
        return ConfigError(f"{what} needs detectron2, which is not installed. {BUILD}")
    return ConfigError(
        f"{what} needs detectron2, which is there but cannot be imported ({error}); "
        "`semvlp doctor` says what to do"
    )


def _python() -> Fact:
    version = platform.python_version_tuple()
    ok = (int(version[0]), int(version[1])) >= (3, 11)
    return Fact("Python", platform.python_version(), ok, "" if ok else "use Python 3.11 or later")


def _package(name: str, *, try_out: Callable[[ModuleType], None] | None = None) -> Fact:
    """Look at a package that is needed: it must import, and do what `try_out` asks of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what will be deprecated works today
            module = importlib.import_module(name)
            if try_out is not None:
                try_out(module)
    except ModuleNotFoundError as error:
        if error.name == name:
            return Fact(name, NOT_INSTALLED, False, f"pip install {name}")
        return _broken(name, error)
    except _BROKEN as error:
        return _broken(name, error)
    version = _version(name)
    if version == NOT_INSTALLED:  # imported from a source folder
        version = str(getattr(module, "__version__", "unknown version"))
    return Fact(name, version)


def _serve() -> Fact:
    """Look at the extra that `semvlp serve` needs, which is optional."""
    missing = [name for name in SERVE if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "optional: pip install 'semvlp[serve]', for a page to ask checkpoints on"
        return Fact("serve", f"{NOT_INSTALLED}: {', '.join(missing)}", remedy=remedy)
    return Fact("serve", f"starlette {_version('starlette')}, uvicorn {_version('uvicorn')}")


def _broken(name: str, error: Exception) -> Fact:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    remedy = f"pip install --force-reinstall {name}"
    if name == "torchvision":
        remedy = f"torchvision must be built for torch {_version('torch')}: pip install --upgrade "
        remedy += "--force-reinstall torch torchvision"
    return Fact(name, f"{_version(name)}, broken: {lines[0]}", False, remedy)


def _try_torch(torch: ModuleType) -> None:
    """Exchange an array: built for another NumPy, torch imports and this fails."""
    torch.zeros(1).numpy()


def _try_torchvision(torchvision: ModuleType) -> None:
    """Run a compiled operator: with another torch the import works and this does not."""
    torch = importlib.import_module("torch")
    ops = importlib.import_module("torchvision.ops")
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    if ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() != [0]:
        raise RuntimeError("torchvision.ops.nms gives a wrong result")


def _try_detectron2(detectron2: ModuleType) -> None:
    """Load its compiled part, which wants its torch, and its model zoo, which wants setuptools."""
    importlib.import_module("detectron2._C")
    importlib.import_module("detectron2.model_zoo")


def _detectron2() -> Fact:
    """Look at detectron2, which is optional: torchvision runs every network with a name."""
    fact = _package("detectron2", try_out=_try_detectron2)
    if fact.value == NOT_INSTALLED:
        return replace(fact, ok=True, remedy=f"Optional. {BUILD}")
    if "pkg_resources" in fact.value:
        return replace(fact, remedy=SETUPTOOLS)
    return fact if fact.ok else replace(fact, remedy=f"Build it for this torch. {BUILD}")


def _backend(detectron2: Fact) -> Fact:
    """Say what `--backend auto` takes; see `load_detector`."""
    missing = bool(detectron2.remedy)
    configs = "detectron2 configs cannot be run" if missing else "detectron2 for its configs"
    return Fact("backend", f"auto takes torchvision; {configs}")


def _cuda() -> Fact:
    try:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            return Fact("CUDA", f"{torch.version.cuda}, {', '.join(names)}")
        built = torch.version.cuda
    except _BROKEN as error:
        return Fact("CUDA", f"unknown: torch is broken: {error}", False, "see torch")
    remedy = "optional: https://pytorch.org/get-started/locally names the build for a GPU"
    if built is None:
        return Fact("CUDA", "none: this torch is built for the CPU", remedy=remedy)
    return Fact("CUDA", f"none: torch is built for {built}, but sees no GPU", remedy=remedy)


def _built_cuda() -> str:
    """Return the version of CUDA that torch is built for, as torch's own file of versions says."""
    try:
        torch = importlib.util.find_spec("torch")
        if torch is None or torch.origin is None:
            return NOT_INSTALLED
        built = runpy.run_path(str(Path(torch.origin).with_name("version.py"))).get("cuda")
    except _BROKEN as error:
        return f"unknown: torch is broken: {error}"
    return built or "none: this torch is built for the CPU"


def _bf16() -> Fact:
    try:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            from semvlp.distributed import native_bf16

            # Only a processor that multiplies it by itself is faster than in fp32.
            native = native_bf16()
            yes = f"yes: this CPU has {' and '.join(native)}, which is faster than fp32"
            return Fact("bf16", yes if native else "on the CPU, slow: use fp32")
        supported = bool(torch.cuda.is_bf16_supported())
    except _BROKEN as error:
        return Fact("bf16", f"unknown: torch is broken: {error}", False, "see torch")
    return Fact("bf16", "yes" if supported else "not on this GPU: use fp32")


def _disk(folder: Path) -> Fact:
    free = shutil.disk_usage(folder).free / 1e9
    remedy = f"an image takes 0.15 to 0.41 MB of regions; free {MIN_FREE_GB} GB or use another disk"
    ok = free >= MIN_FREE_GB
    return Fact("free disk", f"{free:.0f} GB at {folder.resolve()}", ok, "" if ok else remedy)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
