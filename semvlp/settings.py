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
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from semvlp.errors import ConfigError

T = TypeVar("T")
FORMERLY = "formerly"

log = logging.getLogger(__name__)


def formerly(name: str, default: T) -> T:
    """Return a field with a default that was called `name` before, which is read with a warning."""
    return dataclasses.field(default=default, metadata={FORMERLY: name})


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
    """`config` with `a.b=value` overrides; raises as `load` does."""
    tree = to_tree(config)
    for each in overrides:
        _apply(tree, each, type(config))
    return _build(type(config), tree, "")


def build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from nested mappings; raises as `load` does."""
    return _build(cls, _under_current_names(cls, tree), "")


def to_tree(config: Any) -> dict[str, Any]:
    """The nested plain mapping of a config; fields that are None are left out."""
    tree = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            tree[field.name] = to_tree(value) if dataclasses.is_dataclass(value) else value
    return tree


def to_toml(config: Any) -> str:
    """The TOML text that `load` reads back to an equal config."""
    return "\n".join(_toml_lines(to_tree(config), prefix="")).strip() + "\n"


def _toml_lines(tree: Mapping[str, Any], prefix: str) -> list[str]:
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, table in tables.items():
        lines += ["", f"[{prefix}{key}]", *_toml_lines(table, f"{prefix}{key}.")]
    return lines


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON and TOML write booleans, numbers and basic strings alike.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
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
    """Return the settings of `tree` with those that were renamed under their new names."""
    hints, renamed = typing.get_type_hints(cls), _renamed(cls)
    current = {}
    for key, value in tree.items():
        name = renamed.get(key, key)
        if name != key and name in tree:
            raise ConfigError(
                f"{where}{key} is now {where}{name}, and both are given; leave it out"
            )
        if name != key:
            _warn_of_renaming(f"{where}{key}", f"{where}{name}")
        table = hints.get(name)
        is_table = dataclasses.is_dataclass(table) and isinstance(value, Mapping)
        current[name] = _under_current_names(table, value, f"{name}.") if is_table else value
    return current


def _renamed(cls: type) -> dict[str, str]:
    """Return the new name of each former one."""
    fields = dataclasses.fields(cls)
    return {field.metadata[FORMERLY]: field.name for field in fields if FORMERLY in field.metadata}


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
    parts: list[str] = []
    for part in dotted.split("."):
        if not dataclasses.is_dataclass(cls):
            break
        parts.append(_renamed(cls).get(part, part))  # type: ignore[arg-type]
        cls = typing.get_type_hints(cls).get(parts[-1])
    current = ".".join([*parts, *dotted.split(".")[len(parts) :]])
    if current != dotted:
        _warn_of_renaming(dotted, current)
    return current


def _parse_value(text: str) -> Any:
    """`3`, `1e-4`, `true`, `[1, 2]` are TOML values; anything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
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


def at_least(name: str, value: float, least: float) -> None:
    """Raises ValueError: `value` is smaller, or no number."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError: `value` lies outside, or is no number."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
