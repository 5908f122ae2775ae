"""`--version`, `semvlp doctor` and `semvlp completion`: what is installed here, and the shell."""

import click
from click.shell_completion import get_completion_class

from semvlp.commands.console import Command, Result, show
from semvlp.names import SHELLS


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from semvlp.doctor import versions

    installed = versions()
    text = "\n".join(f"{name} {version}" for name, version in installed.items())
    show(ctx, Result(installed, text))
    ctx.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_version,
    help="Versions of semvlp and of what it runs on.",
)


@click.command(cls=Command)
def doctor() -> Result:
    """Show what is installed, what will be used, what is missing and how to get it."""
    from semvlp.doctor import facts

    checked = facts()
    values = {
        fact.name: {"value": fact.value, "ok": fact.ok, "remedy": fact.remedy} for fact in checked
    }
    lines = [
        f"{'ok' if fact.ok else '--'}  {fact.name:<14} {fact.value}"
        + (f"\n    {fact.remedy}" if fact.remedy else "")
        for fact in checked
    ]
    return Result(values, "\n".join(lines))


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> Result:
    """Print what makes SHELL complete commands, options and their choices.

    \b
    eval "$(semvlp completion bash)"          in ~/.bashrc
    eval "$(semvlp completion zsh)"           in ~/.zshrc
    semvlp completion fish | source           in ~/.config/fish/config.fish
    """
    made_by = get_completion_class(shell)
    assert made_by is not None, "click completes for each of these"
    script = made_by(ctx.find_root().command, {}, "semvlp", "_SEMVLP_COMPLETE").source()
    return Result({"shell": shell, "script": script}, script)
