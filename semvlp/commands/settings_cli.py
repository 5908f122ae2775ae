"""`semvlp settings`, and what the commands that have settings share: `--config`, `--set`, hints."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.commands.console import Command, Result
from semvlp.commands.options import together
from semvlp.commands.settings_doc import Setting, tables_of, to_start_file, to_text, to_values

COMMANDS = ("pretrain", "finetune", "extract", "detector")


def defaults_of(command: str) -> Any:
    """Return what `--set` of a command changes; rooms are imported here alone, without torch.

    The networks of `extract` differ in their settings: those of ResNet-101 C4 are shown, among them
    all that torchvision's own models have.
    """
    if command == "pretrain":
        from semvlp.train.config import PretrainConfig

        return PretrainConfig()
    if command == "finetune":
        from semvlp.train.config import FinetuneConfig

        return FinetuneConfig()
    if command == "extract":
        from semvlp.extract.networks import NETWORKS

        return NETWORKS["resnet101_c4"]
    from semvlp.train.detector.config import DetectorTrainConfig

    return DetectorTrainConfig()


class ConfigFile(click.Path):
    """A file of settings, or the name of a recipe."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from semvlp.train.recipes import find_config

        return find_config(Path(value))


settings_options = together(
    click.option(
        "--config",
        type=ConfigFile(),
        metavar="PATH|RECIPE",
        help="TOML file with settings; `semvlp settings --recipes` lists those of the package.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="A.B=C",
        help="One setting, over --config; `semvlp settings` lists them.",
    ),
)


class CommandWithSettings(Command):
    """A command that answers an unknown option which is a setting with `--set`."""

    def __init__(self, *args: Any, settings: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if message := self._instead_of(error.option_name, given):
                raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None
            raise

    def _instead_of(self, option: str, arguments: Sequence[str]) -> str:
        """Return what to type instead of an unknown option; nothing where no setting is meant."""
        ways = []
        for setting in settings_meant(self.settings, option):
            example = "true" if setting.type == "bool" else "VALUE"
            value = _value_of(option, arguments) or example
            ways.append(f"--set {setting.name}={shlex.quote(value)}")
        is_setting = f"it is a setting: {' or '.join(ways)}"
        return f"No such option '{option}'; {is_setting}" if ways else ""


def settings_meant(command: str, option: str) -> list[Setting]:
    """Return the settings of a command that an option's name is the whole or the last part of."""
    name = option.lstrip("-").replace("-", "_")
    return [
        each
        for table in tables_of(defaults_of(command))
        for each in table.settings
        if any(name in (full, full.rpartition(".")[2]) for full in (each.name, *each.other_names))
    ]


def _value_of(option: str, arguments: Sequence[str]) -> str:
    """Return what was typed for an option: after it or its `=`; nothing where nothing was."""
    for argument, after in zip(arguments, [*arguments[1:], "-"], strict=True):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else after if not after.startswith("-") else ""
    return ""


@click.command("settings", cls=Command)
@click.argument("command", type=click.Choice(COMMANDS), required=False)
@click.option("--toml", is_flag=True, help="As a file to start from, for --config.")
@click.option("--recipes", is_flag=True, help="The files of settings that come with the package.")
def list_settings(command: str | None, toml: bool, recipes: bool) -> Result:
    """Print every setting of COMMAND (or of all): its choices, its default, what it does."""
    if recipes:
        from semvlp.train.recipes import RECIPES, purpose

        purposes = {name: purpose(name) for name in RECIPES}
        lines = [f"{name:<18} {text}" for name, text in purposes.items()]
        return Result({"recipes": purposes}, "\n".join(lines))
    if toml:
        text = start_file(command)
        return Result({"toml": text}, text.rstrip())
    tables = {each: tables_of(defaults_of(each)) for each in ([command] if command else COMMANDS)}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    texts = [f"{title_of(each)}\n\n{to_text(of, width)}" for each, of in tables.items()]
    return Result({each: to_values(of) for each, of in tables.items()}, "\n\n\n".join(texts))


def start_file(command: str | None) -> str:
    """Return a TOML file of all settings of a command.

    Raises:
        UsageError: no command, or one that reads no such file.
    """
    if command is None:
        raise click.UsageError("--toml makes the file of one command, such as `pretrain`; name it")
    if command == "extract":
        raise click.UsageError("`semvlp extract` has no --config; give its settings by --set")
    return to_start_file(tables_of(defaults_of(command)), title_of(command))


def title_of(command: str) -> str:
    """Return a sentence on how the settings of a command are given."""
    if command == "extract":
        return (
            "Settings of the network of `semvlp extract`, given by --set shorter_side=400; the "
            "defaults are those of the default detector, another --detector has its own."
        )
    typed = "detector train" if command == "detector" else command
    example = "lr=1e-4" if command == "detector" else "train.lr=1e-4"
    return f"Settings of `semvlp {typed}`, given by --config FILE or --set {example}."
