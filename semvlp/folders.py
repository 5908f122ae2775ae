"""Folders that a program must not write into."""

from pathlib import Path

from semvlp.errors import ConfigError


def refuse_source_code(out: Path) -> None:
    """A folder of this program has the name of what it writes: `shards/` in a checkout of it.

    Raises:
        ConfigError: `out` holds Python source.
    """
    if (out / "__init__.py").exists():
        raise ConfigError(
            f"{out} holds source code (it has an __init__.py), so nothing is written into it; "
            "name another directory with --out"
        )
