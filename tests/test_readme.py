"""Command lines in README and guides are ones that the program takes; README's really run."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from semvlp.cli import cli
from semvlp.commands.console import CONTEXT, run
from semvlp.demo.dataset.files import write_world
from semvlp.demo.world.config import WorldConfig
from semvlp.settings import load
from semvlp.train.config import FinetuneConfig, PretrainConfig
from tests.app.serve.serving import serving
from tests.documents import PAGES, README, ROOT, Fence, command_lines, fences, section
from tests.documents import semvlp_arguments as arguments_of

USE = "Install and use"
# What a run on eight drawn pictures needs besides; everything else stands in the README.
SMALL = ("--set", "train.steps=2", "--set", "train.batch_size=8")
BESIDES: dict[str, tuple[str, ...]] = {
    "extract": ("--detector", "demo"),
    "pretrain": ("--set", "model.preset=tiny", *SMALL),
    "finetune": SMALL,
}


def _commands(blocks: Sequence[Fence]) -> list[list[str]]:
    return [
        words
        for block in blocks
        if block.language != "python"
        for words in command_lines(block.text)
    ]


DOCUMENTED = [(page, words) for page in PAGES for words in _commands(fences(page))]
CALLS = [
    pytest.param(page, arguments, id=f"{page.stem}: {' '.join(arguments)}")
    for page, words in DOCUMENTED
    if (arguments := arguments_of(words)) is not None
]


def test_the_pages_show_commands() -> None:
    assert len(CALLS) > 20
    assert {"extract", "pretrain", "finetune", "eval"} <= {call.values[1][0] for call in CALLS}


@pytest.mark.parametrize(("page", "arguments"), CALLS)
def test_the_program_takes_the_command(
    page: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The files that a page names are those of a reader.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    context = _parsed(arguments)
    settings = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}.get(context.info_name or "")
    if settings is not None:
        load(settings, None, context.params["overrides"])
        config = context.params["config"]
        assert config is None or config.stem in _recipes(), f"{page.name}: {config}"


def _parsed(arguments: Sequence[str]) -> click.Context:
    """Return the context of the command that these arguments mean; it is not run.

    Raises:
        click.UsageError: no such command or option, or a value that an option does not take.
    """
    command: click.Command = cli
    # As the program does: click remembers the help option of the first context of a command.
    context = click.Context(cli, info_name="semvlp", **CONTEXT)
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"there is no command {name!r}")
        command = found
        context = click.Context(command, info_name=name, parent=context)
    assert not isinstance(command, click.Group), f"{arguments} names no command"
    return command.make_context(context.info_name, rest, parent=context.parent)


def _recipes() -> set[str]:
    """Return the names of the recipes that lie in the checkout."""
    return {path.stem for path in ROOT.glob("[a-z]*/**/*.toml")}


@pytest.mark.parametrize(
    "arguments",
    ["extrakt images", "extract images --detektor demo", "eval --task vqa --mode three", "shards"],
)
def test_a_wrong_command_would_be_noticed(arguments: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        _parsed(arguments.split())


def test_programs_and_targets_exist() -> None:
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, words in DOCUMENTED:
        if words[0] == "make":
            assert set(words[1:]) <= rules, f"{page.name}: {' '.join(words)}"
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), f"{page.name}: {words[1]}"


@pytest.mark.slow
def test_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _draw_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = [fence for fence in fences(README) if fence.text in section(README, USE)]
    (block,) = (fence for fence in shown if fence.language != "python")
    done = []
    for line in block.text.splitlines():
        for words in command_lines(line):
            arguments = arguments_of(words)
            if arguments is None:
                assert words[0] in ("pip", "make"), line
                continue
            if arguments[0] == "serve":
                _opens_a_page(arguments[1:])
            else:
                besides = BESIDES.get(arguments[0], ())
                assert run(cli, "semvlp", [*arguments, *besides, "-q"]) == 0, line
            done.append(arguments[0])
            for result in re.findall(r"-> (\S+)$", line):
                assert (tmp_path / result).exists(), f"{line}\nhas not made {result}"
    assert done == ["extract", "pretrain", "finetune", "eval", "ask", "search", "serve"]


def _opens_a_page(arguments: Sequence[str]) -> None:
    with serving(arguments) as served:
        about = served.asked.get("about").json()
        assert about["photos"]
        picture = served.asked.get("photos").json()["photos"][0]
        assert picture["picture"]
    assert served.code == 0


def _draw_data(folder: Path) -> None:
    """Draw the images and write the annotation files that the README names."""
    config = WorldConfig(towers=0, scatter=0, square=1, covered=0, nlvr=0, pairs=1)
    world = write_world(folder / "world", scenes={"train": 8, "valid": 8}, seed=3, config=config)
    (folder / "images").symlink_to(world.root / "images")
    for name, source in {
        "captions.json": world.annotations("retrieval", "train")[0],
        "train.json": world.annotations("nlvr2", "train")[0],
        "dev.json": world.annotations("nlvr2", "valid")[0],
    }.items():
        (folder / name).symlink_to(source)
    photos = sorted(world.images("valid").iterdir())
    for name, photo in zip(("left.jpg", "right.jpg"), photos, strict=False):
        (folder / name).symlink_to(photo)
