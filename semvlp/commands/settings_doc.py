"""What every setting is: name, choices, default and documentation, read from the dataclasses.

The documentation of a setting is the string under its field in the source.
"""

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union

from semvlp.settings import fields_by_other_name, toml_value

WORDS = {bool: "bool", int: "int", float: "float", str: "text", Path: "path"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a command."""

    name: str
    """As after `--set`: `train.lr`."""
    choices: tuple[str | int, ...]
    type: str
    """A word; empty where it must be one of the choices."""
    default: Any
    """None: unset."""
    doc: str
    other_names: tuple[str, ...]
    """Aliases and names of before, dotted as `name`."""

    @property
    def values(self) -> str:
        """The choices and the type as `a | b | int`."""
        return " | ".join([*map(str, self.choices), *([self.type] if self.type else [])])

    @property
    def shown_default(self) -> str:
        """The default as a person types it; nothing where it is unset."""
        if self.default is None:
            return ""
        return self.default if isinstance(self.default, str) else toml_value(self.default)


@dataclass(frozen=True, slots=True)
class Table:
    """The settings of one TOML table."""

    name: str
    """Empty for the settings that are in none."""
    doc: str
    settings: tuple[Setting, ...]


def tables_of(config: Any, name: str = "") -> list[Table]:
    """Return the tables of a dataclass of settings, whose values are the defaults.

    Where a table is None, its settings have the defaults of their own.
    """
    hints, own, inner = typing.get_type_hints(type(config)), [], []
    docs, others = field_docs(type(config)), fields_by_other_name(type(config))
    for field in dataclasses.fields(config):
        value, dotted = getattr(config, field.name), f"{name}.{field.name}".lstrip(".")
        table = _table_in(hints[field.name])
        if table is not None:
            inner += tables_of(table() if value is None else value, dotted)
            continue
        names = [f"{name}.{other}".lstrip(".") for other, of in others.items() if of is field]
        choices, word = _choices(hints[field.name]), _word(hints[field.name])
        own.append(Setting(dotted, choices, word, value, docs.get(field.name, ""), tuple(names)))
    doc = inspect.cleandoc(type(config).__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return [Table(name, doc, tuple(own)), *inner] if own else inner


def _table_in(hint: Any) -> Any:
    """Return the dataclass that a type is, or is where it is not None; else None."""
    for option in (hint, *typing.get_args(hint)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option
    return None


def _choices(hint: Any) -> tuple[str | int, ...]:
    """Return the values that a type, or a part of a union, lists."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(each for option in typing.get_args(hint) for each in _choices(option))
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _word(hint: Any) -> str:
    """Return a word for a type but for what it lists as choices."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " | ".join(filter(None, map(_word, arguments)))
    if origin is tuple:
        return f"list of {_word(arguments[0])}"
    return WORDS.get(hint, "")


def field_docs(cls: type) -> dict[str, str]:
    """Return the documentation of each field of a dataclass, inherited ones included."""
    docs: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        body = _classes_of(each.__module__)[each.__name__].body
        for field, below in pairwise(body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    docs[name] = " ".join(doc.split())
    return docs


@cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Return the source of each class of a module by its name."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def to_text(tables: Sequence[Table], width: int | None) -> str:
    """Return the settings as lines of text: name, default, and what it does with its choices.

    With a `width`, that of a terminal, what it does is wrapped in a column; without, each setting
    is one line.
    """
    settings = [setting for table in tables for setting in table.settings]
    names = max(len(setting.name) for setting in settings)
    defaults = max(len(setting.shown_default) for setting in settings)
    indent = names + defaults + 4
    lines: list[str] = []
    for table in tables:
        lines += ["", f"{table.name or 'settings'}: {table.doc}"]
        for each in table.settings:
            start = f"{each.name:<{names}}  {each.shown_default:<{defaults}}  "
            column = _column(each, None if width is None else max(width - indent, 24))
            lines += [start + column[0], *(" " * indent + line for line in column[1:])]
    return "\n".join(lines[1:])


def _column(setting: Setting, width: int | None) -> list[str]:
    """Return what a setting does and its values, on one line or wrapped to a width."""
    parts = [setting.doc, f"[{setting.values}]"]
    if width is None:
        return [" ".join(filter(None, parts))]
    return [line for part in parts for line in _wrapped(part, width)]


def to_start_file(tables: Sequence[Table], title: str) -> str:
    """Return a TOML file of all settings at their defaults, each with its documentation."""
    lines = _comment(title)
    for table in tables:
        lines += ["", *_comment(table.doc), *([f"[{table.name}]"] if table.name else []), ""]
        for each in table.settings:
            key = each.name.rpartition(".")[2]
            unset = each.default is None
            lines += [*_comment(each.doc), *_comment(each.values)]
            lines += [f"# {key} =" if unset else f"{key} = {toml_value(each.default)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in _wrapped(text, 96)]


def _wrapped(text: str, width: int) -> list[str]:
    # A choice such as `self-attention` stays whole.
    return textwrap.wrap(text, width, break_on_hyphens=False)


def to_values(tables: Sequence[Table]) -> dict[str, dict[str, Any]]:
    """Return the settings as plain JSON values by their names."""
    return {
        each.name: {
            "type": each.type,
            "choices": list(each.choices),
            "default": each.default,
            "doc": each.doc,
            "other_names": list(each.other_names),
        }
        for table in tables
        for each in table.settings
    }


def to_markdown(settings: Sequence[Setting]) -> str:
    """Return a Markdown table of settings."""
    rows = ["| setting | values | default | what |", "| --- | --- | --- | --- |"]
    for each in settings:
        choices = [f"`{choice}`" for choice in each.choices]
        values = ", ".join([*choices, *([each.type] if each.type else [])])
        default = each.shown_default
        cells = (f"`{each.name}`", values, f"`{default}`" if default else "", each.doc)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows)
