"""Options that several commands share."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from semvlp.addresses import OPTION, http_allowed
from semvlp.errors import ConfigError
from semvlp.names import BACKENDS, DEVICES, PRECISIONS, STORE_FORMATS, TASKS

PATH = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def out_option(default: str | None) -> Decorator:
    """Return `--out` with its default."""
    return click.option(
        "--out",
        type=PATH,
        default=default,
        required=default is None,
        help="Where the result goes.",
    )


def choice(name: str, *values: str, help: str = "", default: str | None = None) -> Decorator:
    """Return an option for one of `values`, the first unless `default` says otherwise."""
    return click.option(
        name, type=click.Choice(values), default=default or values[0], help=help or None
    )


def together(*options: Decorator) -> Decorator:
    """Return several options as one decorator, in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def require_extra(extra: str, *modules: str) -> None:
    """Check that the packages of an extra are installed, before anything is loaded that needs them.

    Raises:
        ConfigError: one is missing; names the extra.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"this command needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'}"
            f" not installed: pip install 'semvlp[{extra}]'"
        )


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Start anew; replaces what an earlier run wrote there."
)
restart_options = together(
    click.option(
        "--resume/--no-resume",
        default=True,
        help="Go on where an earlier run of the same command stopped.",
    ),
    overwrite_option,
)
from_option = click.option(
    "--from",
    "from_",
    type=PATH,
    help="A checkpoint to go on from with other settings; keeps heads and optimiser.",
)
keep_option = click.option(
    "--keep", type=click.IntRange(1), help="Newest checkpoints kept, as --set train.keep=N."
)


def _parse_columns(given: Sequence[str]) -> dict[str, str]:
    from semvlp.eval.files.columns import parse_columns

    return parse_columns(given)


def _allow_http(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.with_resource(http_allowed())


allow_http_option = click.option(
    OPTION,
    is_flag=True,
    expose_value=False,
    callback=_allow_http,
    help="Take what an http:// address gives, though anyone on the way can change it.",
)
task_option = click.option("--task", type=click.Choice(TASKS), required=True, help="The benchmark.")
annotations_option = click.option(
    "--annotations",
    type=EXISTING,
    multiple=True,
    help="Official annotation file; repeat for tasks with two (VQA questions and answers).",
)
columns_option = click.option(
    "--columns",
    multiple=True,
    metavar="ROLE=NAME",
    callback=lambda ctx, param, given: _parse_columns(given),
    help="Task table: the name of a column, such as question=Q; repeat for more.",
)


def _max_bad(default: float, what: str = "images is refused") -> Decorator:
    return click.option(
        "--max-bad",
        type=click.FloatRange(0, 1),
        default=default,
        help=f"Exit 4 when a larger fraction of the {what}.",
    )


max_bad_option = _max_bad(0.05)
examples_bad_option = _max_bad(0.05, "examples is left out")
none_bad_option = _max_bad(0.0)
"""For what was whole when it was written."""
other_regions_option = click.option(
    "--allow-other-regions",
    is_flag=True,
    help="Go on where the regions are others than those that the checkpoint was trained on.",
)
device_option = choice("--device", *DEVICES, help="auto: a GPU where there is one.")
precision_option = choice(
    "--precision",
    *PRECISIONS,
    help="auto: bf16 where the device multiplies it by itself, as more than twice as fast.",
)
backend_option = choice("--backend", *BACKENDS)
STORE_FORMAT = click.Choice(STORE_FORMATS)
