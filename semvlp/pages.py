"""HTML pages from jinja2 templates: everything escaped, an unknown name is an error."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from semvlp.atomic import make_directory, write_text
from semvlp.errors import ConfigError

MARK = '<meta name="generator" content="semvlp">'
MARKS = (MARK, "--page: #f4f5f7; --card: #fff; --ink: #1b1f27; --soft: #656d7b; --line: #e0e3e9;")
"""One of these is in every page of ours: the second one, of their style, in those of 0.1."""


def render(template: Path, **values: Any) -> str:
    """Return the page that the file `template` makes of `values`.

    It may include files beside it and `style.html`, which all pages share.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name).render(**values)
    return page.replace("<head>\n", f"<head>\n{MARK}\n", 1)


def link(target: Path, folder: Path) -> str:
    """Return the relative address of a page for one in `folder`; empty where there is no such."""
    if not target.is_file():
        return ""
    return quote(Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix())


def write_page(path: Path, page: str) -> None:
    """Write a page to a place that the user names, where nothing but a page of ours is replaced.

    Raises:
        ConfigError: there is something else.
    """
    if path.exists() and not (path.is_file() and _is_ours(path)):
        raise ConfigError(f"{path} is no page of ours, so it is not replaced; name another --out")
    make_directory(path.parent)
    write_text(path, page)


def _is_ours(path: Path) -> bool:
    start = path.read_bytes()[:4096]
    return any(mark.encode() in start for mark in MARKS)
