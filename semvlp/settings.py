"""Configuration: one TOML file and dotted overrides become nested frozen dataclasses."""

import dataclasses
import difflib
import json
import logging
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from semvlp.documents import from_toml
from semvlp.errors import ConfigError

T = TypeVar("T")
FORMERLY = "formerly"
ALSO = "also"
BEFORE = "before"

log = logging.getLogger(__name__)


def formerly(name: str, default: T) -> T:
    """Return a field with a default that was called `name` before, which is read with a warning."""
    return dataclasses.field(default=default, metadata={FORMERLY: name})


def also_called(name: str, default: T) -> T:
    """Return a field with a default that may as well be called `name`, for good."""
    return dataclasses.field(default=default, metadata={ALSO: name})


def added(default: T, *, before: T) -> T:
    """Return a field that did not exist before, when the program did what `before` now asks for.

    The settings of a run are written whole, so a file that names every other setting of the table
    and not this one is of a run of then.
    """
    return dataclasses.field(default=default, metadata={BEFORE: before})


def load(cls: type[T], path: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Build `cls` from the TOML file `path` (or its defaults), then apply `a.b=value` overrides.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of the wrong type, or
            a combination that the dataclass itself refuses.
    """
    tree = _under_current_names(cls, _read(path)) if path is not None else {}
    for each in overrides:
        _apply(tree, each, cls)
    return _build(cls, tree, "")


def override(config: T, overrides: Sequence[str]) -> T:
    """Return `config` with `a.b=value` overrides; raises as `load` does."""
    tree = to_tree(config)
    for each in overrides:
        _apply(tree, each, type(config))
    return _build(type(config), tree, "")


def build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from nested mappings; raises as `load` does."""
    return _build(cls, _under_current_names(cls, tree), "")


def to_tree(config: Any) -> dict[str, Any]:
    """Return the nested plain mapping of a config; fields that are None are left out."""
    tree = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            tree[field.name] = to_tree(value) if dataclasses.is_dataclass(value) else value
    return tree


def to_toml(config: Any) -> str:
    """Return the TOML text that `load` reads back to an equal config."""
    return "\n".join(_toml_lines(to_tree(config), prefix="")).strip() + "\n"


def _toml_lines(tree: Mapping[str, Any], prefix: str) -> list[str]:
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {toml_value(value)}" for key, value in plain.items()]
    for key, table in tables.items():
        lines += ["", f"[{prefix}{key}]", *_toml_lines(table, f"{prefix}{key}.")]
    return lines


def toml_value(value: Any) -> str:
    """Return a plain value as TOML writes it."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # JSON and TOML write booleans, numbers and basic strings alike.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        return from_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _build(cls: type[T], tree: Mapping[str, Any], where: str) -> T:
    """Build `cls`; `where` is the dotted name of its table for messages, with a dot behind."""
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in fields:
            raise ConfigError(_unknown(f"{where}{key}", key, list(fields)))
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in tree.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where or 'config'}: {error}") from error


def _under_current_names(cls: Any, tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the settings of `tree` with those that have another name under that of their field."""
    hints, fields = typing.get_type_hints(cls), fields_by_other_name(cls)
    current = {}
    for key, value in tree.items():
        name = fields[key].name if key in fields else key
        if name != key and name in tree:
            raise ConfigError(
                f"{where}{key} and {where}{name} are one setting, and both are given; "
                f"leave out {where}{key}"
            )
        if name != key:
            _warn_if_renamed(fields[key], f"{where}{key}", f"{where}{name}")
        table = _table(hints.get(name))
        is_table = dataclasses.is_dataclass(table) and isinstance(value, Mapping)
        current[name] = _under_current_names(table, value, f"{where}{name}.") if is_table else value
    return _as_before(cls, current) | current


def _as_before(cls: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fields that were added later stood for in a table that a run of before wrote."""
    fields = dataclasses.fields(cls)
    written = {f.name for f in fields if BEFORE not in f.metadata and f.default is not None}
    if not written <= table.keys():
        return {}
    return {field.name: field.metadata[BEFORE] for field in fields if BEFORE in field.metadata}


def fields_by_other_name(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass by their aliases and by their names of before."""
    return {
        field.metadata[kind]: field
        for field in dataclasses.fields(cls)
        for kind in (FORMERLY, ALSO)
        if kind in field.metadata
    }


def _warn_if_renamed(field: dataclasses.Field[Any], old: str, new: str) -> None:
    if FORMERLY in field.metadata:
        _warn_of_renaming(old, new)


@cache
def _warn_of_renaming(old: str, new: str) -> None:
    log.warning("the setting %s is now called %s; the old name is read until version 0.3", old, new)


def _apply(tree: dict[str, Any], override: str, cls: type) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set takes name=value, e.g. train.lr=1e-4, but got {override!r}")
    *parents, last = _under_current_name(name, cls).split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a table")
    tree[last] = _parse_value(text)


def _under_current_name(dotted: str, cls: Any) -> str:
    """Return the dotted name of a setting of `cls`, with a warning if it was renamed."""
    where = ""
    parts = dotted.split(".")
    for i, part in enumerate(parts):
        if not dataclasses.is_dataclass(cls):
            break
        field = fields_by_other_name(cls).get(part)
        if field is not None:
            parts[i] = field.name
            _warn_if_renamed(field, f"{where}{part}", f"{where}{field.name}")
        cls = _table(typing.get_type_hints(cls).get(parts[i]))
        where += f"{parts[i]}."
    return ".".join(parts)


def _table(hint: Any) -> Any:
    """Return the dataclass of a table that may be None, and any other hint as it is."""
    tables = [each for each in typing.get_args(hint) if dataclasses.is_dataclass(each)]
    return tables[0] if tables else hint


def _parse_value(text: str) -> Any:
    """`3`, `1e-4`, `true`, `[1, 2]` are TOML values; anything else is a string."""
    try:
        return from_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _unknown(dotted: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {dotted!r}; {hint}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, got {value!r}")
        return _build(hint, value, f"{where}.")
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if origin is Literal:
        return _convert_literal(typing.get_args(hint), value, where)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint)[0], value, where)
    return _convert_plain(hint, value, where)


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    kinds = [option for option in options if option is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, where)
        except ConfigError:
            continue
    return _convert(kinds[-1], value, where)


def _convert_literal(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in options or isinstance(value, bool) != isinstance(options[0], bool):
        choices = ", ".join(map(repr, options))
        raise ConfigError(f"{where} must be one of {choices}, got {value!r}")
    return value


def _convert_tuple(item: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} must be a list, got {value!r}")
    return tuple(_convert(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))


def _convert_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {kind.__name__}, got {value!r}")
    return value


def require_at_least(config: Any, least: float, *names: str) -> None:
    """Check that the settings `names` of `config`, those of a table as `train.lr`, are big enough.

    Raises:
        ValueError: one is smaller than `least`, or no number; None is allowed.
    """
    for name in names:
        value = attrgetter(name)(config)
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def require_between(config: Any, low: float, high: float, *names: str) -> None:
    """Check that the settings `names` of `config` lie in `low`..`high`.

    Raises:
        ValueError: one lies outside, or is no number; None is allowed.
    """
    for name in names:
        value = attrgetter(name)(config)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must be between {low} and {high}, got {value}")
