"""Configuration files and overrides: types, suggestions, round trip, names of before."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from semvlp import settings
from semvlp.errors import ConfigError
from semvlp.settings import added, also_called, build, formerly, load, to_toml


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


@dataclass(frozen=True, kw_only=True)
class Renamed:
    lr_schedule: str = formerly("decay", "linear")
    schedule: str = also_called("modes", "alternate")


@dataclass(frozen=True, kw_only=True)
class Whole:
    train: Renamed = field(default_factory=Renamed)
    deep: Outer = field(default_factory=Outer)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The warnings of a test, none of which was given before."""
    settings._warn_of_renaming.cache_clear()
    return caplog


def written(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text)
    return file


def test_a_name_of_before_is_read_with_one_warning_that_names_the_new_one(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, '[train]\ndecay = "cosine"\n')
    expected = Whole(train=Renamed(lr_schedule="cosine"))
    assert load(Whole, file) == expected
    assert load(Whole, None, ["train.decay=cosine"]) == expected
    assert build(Whole, {"train": {"decay": "cosine"}}) == expected
    (warning,) = warnings.messages
    assert "setting train.decay is now called train.lr_schedule" in warning


@dataclass(frozen=True, kw_only=True)
class Grown:
    rate: float = 1e-4
    layers: int | None = None
    kind: str = added("new", before="old")


@dataclass(frozen=True, kw_only=True)
class Runs:
    steps: int = 10
    model: Grown = field(default_factory=Grown)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[model]\nrate = 1e-4\n", "old"),  # as a run of before has written it, whole
        ('[model]\nrate = 1e-4\nkind = "new"\n', "new"),
        ("[model]\nlayers = 2\n", "new"),  # as people write it
        ("steps = 3\n", "new"),
        ("", "new"),
    ],
)
def test_a_setting_that_was_added_is_what_runs_of_before_did(
    tmp_path: Path, text: str, kind: str
) -> None:
    assert load(Runs, written(tmp_path, text)).model.kind == kind
    given = load(Runs, written(tmp_path, text), ["model.kind=third"])
    assert given.model.kind == "third"


def test_both_names_in_one_file_are_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, '[train]\ndecay = "cosine"\nlr_schedule = "linear"\n')
    with pytest.raises(ConfigError, match=r"train\.decay and train\.lr_schedule are one setting"):
        load(Whole, file)


def test_the_new_name_by_set_wins_over_the_old_one_in_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[train]\ndecay = "cosine"\n')
    config = load(Whole, file, ["train.lr_schedule=constant"])
    assert config.train.lr_schedule == "constant"


def test_an_alias_is_read_without_a_warning_and_written_as_the_name(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    config = load(Whole, written(tmp_path, '[train]\nmodes = "single"\n'))
    assert config == load(Whole, None, ["train.modes=single"])
    assert config.train.schedule == "single"
    assert "schedule = " in to_toml(config)
    assert "modes" not in to_toml(config)
    assert not warnings.messages
    both = written(tmp_path, '[train]\nmodes = "single"\nschedule = "two"\n')
    with pytest.raises(ConfigError, match=r"leave out train\.modes"):
        load(Whole, both)


def test_an_unknown_table_of_a_table_is_named_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'deep\.inner\.raet'; did you mean 'rate'"):
        load(Whole, written(tmp_path, "[deep.inner]\nraet = 1.0\n"))
