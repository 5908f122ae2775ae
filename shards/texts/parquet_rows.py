"""Parquet files of annotations and predictions, row by row."""

import math
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError, InputError

MAGIC = b"PAR1"


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file as JSON values by column; numbers that are NaN are null.

    Raises:
        ConfigError: pyarrow is not installed.
        InputError: the file is damaged, or a column holds what JSON does not, such as images.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise without_pyarrow(error) from error
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: is no parquet file, or a damaged one: {error!s:.300}") from error
    return [{name: _plain(cell, name, path) for name, cell in row.items()} for row in rows]


def without_pyarrow(error: ImportError) -> ConfigError:
    """Return the error where parquet is asked for and pyarrow is not installed."""
    return ConfigError(f"parquet needs pyarrow: pip install 'semvlp[parquet]' ({error})")


def _plain(cell: Any, name: str, path: Path) -> Any:
    if isinstance(cell, list):
        return [_plain(each, name, path) for each in cell]
    if isinstance(cell, dict):
        return {key: _plain(each, name, path) for key, each in cell.items()}
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if cell is None or isinstance(cell, str | int | float):
        return cell
    raise InputError(
        f"{path}: the column {name} holds {type(cell).__name__}, where text and numbers can be "
        "read; leave it out"
    )
