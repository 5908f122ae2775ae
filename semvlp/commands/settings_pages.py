"""The settings tables of the docs: `python -m semvlp.commands.settings_pages docs` renews them.

A page has a table between `<!-- settings: COMMAND [TABLE]... [besides OTHER] -->` and
`<!-- end of settings -->`: the settings of COMMAND in these tables, or in all; but for those that
are the same in OTHER.
"""

import re
import sys
from pathlib import Path

from semvlp.atomic import write_text
from semvlp.commands.settings_cli import defaults_of
from semvlp.commands.settings_doc import Setting, tables_of, to_markdown

BETWEEN_MARKERS = re.compile(
    r"(?P<start><!-- settings: (?P<what>.+?) -->\n).*?(?P<end><!-- end of settings -->)", re.DOTALL
)


def renewed(page: str) -> str:
    """Return the text of a page with every table as the dataclasses have it now."""

    def fill(match: re.Match[str]) -> str:
        return f"{match['start']}\n{to_markdown(settings_of(match['what']))}\n\n{match['end']}"

    return BETWEEN_MARKERS.sub(fill, page)


def settings_of(what: str) -> list[Setting]:
    """Return the settings that a marker names: `pretrain train`, `finetune besides pretrain`."""
    named, _, other = what.partition(" besides ")
    command, *tables = named.split()
    elsewhere = settings_of(other) if other else []
    return [
        setting
        for table in tables_of(defaults_of(command))
        if not tables or table.name in tables
        for setting in table.settings
        if setting not in elsewhere
    ]


def main(folder: Path) -> None:
    """Renew the pages of a folder."""
    for page in sorted(folder.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        if renewed(before) != before:
            write_text(page, renewed(before))
            print(f"{page} is renewed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
