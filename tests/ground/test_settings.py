"""Configuration files and overrides: types, suggestions, round trip."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from semvlp.errors import ConfigError
from semvlp.settings import load, to_toml


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1e-4
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int = 10
    name: str = "x"
    on: bool = True
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('steps = 3\n[inner]\nkind = "b"\n')
    config = load(Outer, file, ["steps=5", "inner.rate=1", "inner.path=a/b", "name=plain words"])
    assert config == Outer(
        steps=5, name="plain words", inner=Inner(rate=1.0, kind="b", path=Path("a/b"))
    )


def test_written_and_read_again_is_equal(tmp_path: Path) -> None:
    config = Outer(name='quotes " and \\ and ü', inner=Inner(sizes=(), rate=3e-7, path=Path("p")))
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config))
    assert load(Outer, file) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=1", "did you mean 'steps'"),
        ("inner.raet=1", r"'inner.raet'; did you mean 'rate'"),
        ("steps=true", "steps must be int, got True"),
        ("steps=1.5", "steps must be int"),
        ("on=1", "on must be bool"),
        ("inner.kind=c", "inner.kind must be one of 'a', 'b'"),
        ("inner.sizes=[1, 'x']", r"inner.sizes\[1\] must be int"),
        ("inner=3", "inner must be a table"),
        ("steps", "name=value"),
        ("steps=0", "at least 1"),
    ],
)
def test_errors_say_where_and_what(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Outer, None, [override])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml"):
        load(Outer, tmp_path / "no.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = = 3")
    with pytest.raises(ConfigError, match=r"broken\.toml: not a TOML file"):
        load(Outer, broken)
