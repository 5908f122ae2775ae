"""What README, CONTRIBUTING and the guides name is there: links, files, modules, settings."""

import ast
import dataclasses
import importlib
import re
import typing
from pathlib import Path

import click
import pytest

import semvlp
from semvlp.cli import cli
from semvlp.settings import ALSO
from semvlp.train.config import FinetuneConfig, PretrainConfig
from tests.documents import PAGES, README, ROOT, anchors, backticked, fences, links

ROOMS = ("extract", "shards", "model", "train", "eval", "app", "demo", "semvlp")
FOLDERS = (*ROOMS, "tests", "benchmarks", "docs")
SOURCE = (".py", ".md", ".svg", ".yml")
TABLES = ("model", "data", "objectives", "train", "retrieval")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leaves the project"
        assert target.exists(), f"{page.name}: nothing is at {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link} has no such heading"


@each_page
def test_links_within_the_site_do_not_leave_it(page: Path) -> None:
    docs = ROOT / "docs"
    if not page.is_relative_to(docs):
        return
    for link in links(page):
        if not link.startswith(("https://", "http://", "#")):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert target.is_relative_to(docs), f"{page.name}: {link} is not on the site"


@each_page
def test_files_in_backticks_exist(page: Path) -> None:
    ours = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    ours |= {path.name for path in ROOT.iterdir()}
    for word in backticked(page):
        name = word.split("::")[0].strip(",;")
        if not re.fullmatch(r"[\w./*-]+", name) or name.startswith(("/", ".")):
            continue
        first, _, rest = name.partition("/")
        if rest and first in FOLDERS and (name.endswith(SOURCE) or _is_inner_folder(name)):
            assert list(ROOT.glob(name.rstrip("/"))), f"{page.name}: there is no {name}"
        elif not rest and name.endswith(".py"):
            assert name in ours, f"{page.name}: no file is called {name}"


def _is_inner_folder(name: str) -> bool:
    """Tell whether a name looks like a folder within a room, as `extract/weights/` does."""
    return name.count("/") > name.endswith("/") and not Path(name).suffix


@each_page
def test_modules_and_names_in_backticks_can_be_imported(page: Path) -> None:
    for word in backticked(page):
        match = re.match(r"semvlp(\.\w+)+", word)
        if match and word != "semvlp.cli":
            _resolve(match[0])


@each_page
def test_python_in_fences_imports_what_there_is(page: Path) -> None:
    for fence in fences(page):
        if fence.language == "python":
            for node in ast.parse(fence.text).body:
                if isinstance(node, ast.ImportFrom) and node.module:
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)


@each_page
def test_settings_in_backticks_are_settings(page: Path) -> None:
    known = _settings(PretrainConfig) | _settings(FinetuneConfig)
    for word in backticked(page):
        match = re.match(rf"({'|'.join(TABLES)})\.(\w+)", word)
        if match and not word.endswith(SOURCE) and match[2] not in _METHODS:
            assert match[0] in known, f"{page.name}: {match[0]} is no setting"


# Written of a model or of a batch source, as in `model.compile_blocks()`.
_METHODS = ("compile_blocks", "activation_checkpointing_enable", "safetensors")


def test_the_tree_of_the_readme_shows_every_inner_room() -> None:
    (tree,) = (fence.text for fence in fences(README) if fence.text.startswith("extract/"))
    lines = {line.split("/")[0]: line for line in tree.splitlines()}
    for room in ROOMS[:-1]:
        inner = {path.parent.name for path in (ROOT / room).glob("*/*.py")}
        shown = set(re.findall(r"(\w+)/", lines[room])) - {room}
        assert shown == inner | {path.parent.name for path in (ROOT / room).glob("*/*.toml")}, room


def test_the_readme_has_every_public_name() -> None:
    words = set(re.findall(r"\w+", README.read_text()))
    assert set(semvlp.__all__) <= words


@pytest.mark.parametrize("name", ["ask", "search", "serve"])
def test_the_guide_to_asking_has_every_option(name: str) -> None:
    told = set(re.findall(r"--[\w-]+", (ROOT / "docs" / "ask.md").read_text()))
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {max(each.opts, key=len) for each in command.params if isinstance(each, click.Option)}
    assert options - {"--verbose", "--quiet"} <= told


def test_the_tour_names_classes_and_functions_where_they_are() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text()
    stations = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", tour)
    assert len(stations) > 20
    for file, names in stations:
        source = (ROOT / file).read_text()
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^(class|def) {name}\b", source, re.MULTILINE), f"{file}: no {name}"


def _settings(config: type) -> set[str]:
    tables = typing.get_type_hints(config)
    return {
        f"{table}.{name}"
        for table, kind in tables.items()
        if dataclasses.is_dataclass(kind)
        for field in dataclasses.fields(kind)
        for name in (field.name, field.metadata.get(ALSO))
    }


def _resolve(dotted: str) -> object:
    """Import the longest module of a dotted name, and take the rest as attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            value = getattr(value, name)
        return value
    raise LookupError(dotted)
