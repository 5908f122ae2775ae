"""How every command behaves: its result on stdout, the log on stderr, an exit code."""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from semvlp.errors import InputError, SemVLPError, printable
from semvlp.torchrun import process_rank

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@dataclass(frozen=True)
class Result:
    """What a command found or made: the values for `--json`, the text for people."""

    values: Mapping[str, Any]
    text: str


def reported(report: Any) -> Result:
    """The result of a command whose work returns a report of its own."""
    return Result(report.values(), report.sentence())


def listed(facts: Mapping[str, Any]) -> str:
    """One line for each fact, what is nested on its line."""

    def plain(value: Any) -> str:
        nested = isinstance(value, Mapping)
        return ", ".join(f"{k} {v}" for k, v in value.items()) if nested else str(value)

    return "\n".join(f"{name:<18} {plain(value)}" for name, value in facts.items())


class Command(click.Command):
    """A command that prints its Result and takes the global options wherever they are typed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()

    def invoke(self, ctx: click.Context) -> Any:
        show(ctx, super().invoke(ctx))


class Group(click.Group):
    """Commands in the order of the pipeline; takes the global options too."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def show(ctx: click.Context, result: Result) -> None:
    """Print a result the way the user asked for it; of torchrun's processes the first one does."""
    if process_rank().rank:
        return
    if ctx.find_root().ensure_object(dict).get("as_json"):
        text = json.dumps(result.values, allow_nan=False, ensure_ascii=False, default=str)
    else:
        text = result.text
    click.echo(printable(text))


def run(program: click.Group, name: str, arguments: Sequence[str]) -> int:
    """Run the program; an error becomes one message and its exit code."""
    _log_to_stderr()
    # What is wrong with an image is said where it is refused; its metadata are nobody's concern.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return program.main(list(arguments), prog_name=name, standalone_mode=False) or 0
    except NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        message = "interrupted; everything finished so far is kept"
        return _failed(error, message, 130, arguments)
    except click.UsageError as error:
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _failed(error, error.format_message() + where, error.exit_code, arguments)
    except SemVLPError as error:
        return _failed(error, str(error), error.exit_code, arguments)
    except RecursionError as error:
        message = "a file that was given is nested too deeply (-v shows where it is read)"
        return _failed(error, message, InputError.exit_code, arguments)
    except Exception as error:
        message = f"{type(error).__name__}: {error} (-v shows where)"
        return _failed(error, message, 1, arguments)


def _failed(error: BaseException, message: str, code: int, arguments: Sequence[str]) -> int:
    """Say what went wrong, with -v also where; returns the exit code."""
    if {"-v", "--verbose"} & set(arguments):
        click.echo(printable("".join(traceback.format_exception(error))), err=True)
    click.echo(printable(f"error: {message}"), err=True)
    if "--json" in arguments:
        click.echo(json.dumps({"error": message, "exit_code": code}))
    return code


def _global_options() -> list[click.Parameter]:
    flags = (
        (("--json", "as_json"), "Print exactly one JSON object on stdout."),
        (("-v", "--verbose"), "More log; a traceback with an error."),
        (("-q", "--quiet"), "Warnings and errors only."),
    )
    return [
        click.Option(names, is_flag=True, expose_value=False, callback=_keep, help=text)
        for names, text in flags
    ]


def _keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Remember a global option for the whole run, whether typed before or after the command."""
    flags = ctx.find_root().ensure_object(dict)
    if value:
        flags[param.name] = True
    level = logging.DEBUG if flags.get("verbose") else logging.INFO
    # What all of torchrun's processes would tell, the first one tells.
    quiet = flags.get("quiet") or process_rank().rank
    logging.getLogger("semvlp").setLevel(logging.WARNING if quiet else level)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr() -> None:
    """Only our own log; other libraries' INFO lines are noise here."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
