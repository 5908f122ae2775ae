"""The package: links, one version, one top-level name in the wheel."""

import tomllib
from pathlib import Path

import semvlp

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("extract", "shards", "model", "train", "eval", "demo")


def test_links_point_to_the_top_level() -> None:
    for name in (*ROOMS, "cli.py"):
        link = ROOT / "semvlp" / name
        assert link.is_symlink(), name
        assert link.resolve() == ROOT / name


def test_every_folder_with_modules_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {
        "semvlp." + ".".join(file.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == {"semvlp"} | folders


def test_every_dependency_is_pinned_in_the_tested_set() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["dependencies"] + project["optional-dependencies"]["dev"]
    wanted = {name.split(">")[0].split("[")[0].strip() for name in named}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines}
    assert wanted <= pinned


def test_changelog_has_the_current_version() -> None:
    assert f"## {semvlp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
