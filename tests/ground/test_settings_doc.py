"""What is read of a dataclass of settings: documentation, choices, defaults."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from semvlp.commands.settings_doc import field_docs, tables_of, to_start_file, to_text
from semvlp.settings import also_called, formerly


@dataclass(frozen=True, kw_only=True)
class Base:
    """What both have."""

    steps: int = 10
    """How many
    steps."""
    undocumented: bool = True
    path: Path | None = None
    """Where."""


@dataclass(frozen=True, kw_only=True)
class Inner(Base):
    """What is inside,
    on two lines.

    And more that is not shown.
    """

    steps: int = formerly("count", 3)
    """Steps inside."""
    kind: tuple[str, ...] | Literal["a", "b"] = also_called("sort", "a")
    """Which | of them."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Everything."""

    name: str = "x y"
    """Its name."""
    inner: Inner = field(default_factory=Inner)
    maybe: Base | None = None


def test_documentation_is_the_string_under_the_field_of_the_last_class() -> None:
    assert field_docs(Base) == {"steps": "How many steps.", "path": "Where."}
    assert field_docs(Inner)["steps"] == "Steps inside."
    assert field_docs(Inner)["path"] == "Where."
    assert "undocumented" not in field_docs(Inner)


def test_tables_have_dotted_settings_with_their_defaults_and_other_names() -> None:
    outer, inner, maybe = tables_of(Outer(inner=Inner(steps=7)))
    assert (outer.name, inner.name, maybe.name) == ("", "inner", "maybe")
    assert inner.doc == "What is inside, on two lines."
    steps, undocumented, path, kind = inner.settings
    assert (steps.name, steps.default, steps.type) == ("inner.steps", 7, "int")
    assert steps.other_names == ("inner.count",)
    assert (undocumented.type, undocumented.doc) == ("bool", "")
    assert (path.type, path.default, path.shown_default) == ("path", None, "")
    assert (kind.choices, kind.type) == (("a", "b"), "list of text")
    assert kind.values == "a | b | list of text"
    assert kind.other_names == ("inner.sort",)
    assert maybe.settings[0].default == 10


def test_text_has_one_line_a_setting_or_columns() -> None:
    tables = tables_of(Outer())
    lines = to_text(tables, None).splitlines()
    assert "inner.undocumented  true  [bool]" in lines
    assert "inner.steps         3     Steps inside. [int]" in lines
    assert all(len(line) <= 60 for line in to_text(tables, 60).splitlines())


def test_the_file_to_start_from_is_toml_whose_unset_settings_are_comments() -> None:
    text = to_start_file(tables_of(Outer()), "A title.")
    assert text.startswith("# A title.\n")
    assert tomllib.loads(text)["inner"] == {"steps": 3, "undocumented": True, "kind": "a"}
    assert "# Where.\n# path\n# path =\n" in text
