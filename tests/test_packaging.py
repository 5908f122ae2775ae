"""The package: links, one version, one top-level name in the wheel."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

import semvlp

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("extract", "shards", "model", "train", "eval", "app", "demo")
NO_SOURCE = ("build", "dist", "runs", "*.egg-info", "__pycache__")


def test_links_point_to_the_top_level() -> None:
    for name in (*ROOMS, "cli.py"):
        link = ROOT / "semvlp" / name
        assert link.is_symlink(), name
        assert link.resolve() == ROOT / name


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which a wheel of the checkout is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".*", *NO_SOURCE))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    done = subprocess.run([*command, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_every_file_of_the_rooms(unpacked: Path) -> None:
    ours = [path for room in ROOMS for path in (ROOT / room).rglob("*.*")]
    files = {f"semvlp/{path.relative_to(ROOT).as_posix()}" for path in ours}
    files = {name for name in files if not name.endswith(".pyc")}
    packed = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*.*")}
    assert len(files) > 100
    assert files <= packed


def test_every_module_of_the_wheel_can_be_imported(unpacked: Path) -> None:
    script = """
import importlib, pkgutil, semvlp
names = [module.name for module in pkgutil.walk_packages(semvlp.__path__, "semvlp.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name == "detectron2", (name, error)
print(semvlp.__file__, len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    place, count = done.stdout.split()
    assert Path(place).is_relative_to(unpacked)
    assert int(count) > 150


def test_settings_and_recipes_are_in_the_wheel(unpacked: Path) -> None:
    script = """
from pathlib import Path
from semvlp.settings import load
from semvlp.commands.settings_cli import defaults_of
from semvlp.commands.settings_doc import field_docs
from semvlp.train.recipes import find_config
recipe = find_config(Path("semvlp_base"))
load(type(defaults_of("pretrain")), recipe)
print(len(field_docs(type(defaults_of("pretrain").train))), recipe)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count, recipe = done.stdout.split()
    assert int(count) > 20
    assert Path(recipe).is_relative_to(unpacked)


def test_every_dependency_is_pinned_in_the_tested_set() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = project["dependencies"] + extras["dev"] + extras["docs"]
    wanted = {name.split(">")[0].split("[")[0].strip() for name in named}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines}
    assert wanted <= pinned


def test_changelog_and_citation_have_the_current_version() -> None:
    assert f"## {semvlp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {semvlp.__version__}\n" in (ROOT / "CITATION.cff").read_text()
