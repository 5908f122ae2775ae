"""Regions meet weights: those of another profile are refused wherever they do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from semvlp.errors import InputError
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.shards.open import open_store
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain
from tests.train.finetuning import task_of

# What the regions of the checkpoint come from, of which each other store differs in one thing.
OWN = {"weights_sha256": "1f" * 32, "selection": {"min_regions": 36, "suppress": "once"}}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "of other weights": (
        {"weights_sha256": "2e" * 32},
        f"weights_sha256 was '{'1f' * 32}', now '{'2e' * 32}'",
    ),
    "selected otherwise": (
        {"selection": {"min_regions": 10, "suppress": "per class"}},
        "selection.min_regions was 36, now 10; selection.suppress was 'once', now 'per class'",
    ),
}

Use = Callable[..., object]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Path]) -> Path:
    return write_store(tmp_path_factory.mktemp("own") / "shards", range(24), **OWN)


@pytest.fixture(scope="module", params=OTHERS)
def other(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    write_store: Callable[..., Path],
) -> tuple[Path, str]:
    """A store of other regions, and how it differs."""
    changes, difference = OTHERS[request.param]
    path = tmp_path_factory.mktemp("other") / "shards"
    return write_store(path, range(24), **OWN | changes), difference


@pytest.fixture(scope="module")
def pretrained(
    own: Path, small: Callable[..., PretrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("pretrained")
    pretrain([own], run, small("train.steps=1"))
    return run / "last"


@pytest.fixture(scope="module")
def tuned(
    own: Path,
    pretrained: Path,
    annotations: Path,
    small_task: Callable[..., FinetuneConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    run = tmp_path_factory.mktemp("tuned")
    finetune(task_of(), [annotations], own, pretrained, run, small_task("train.steps=1"))
    return run / "last"


@pytest.fixture(params=["pretrain", "finetune", "eval"])
def use(
    request: pytest.FixtureRequest,
    pretrained: Path,
    tuned: Path,
    annotations: Path,
    small: Callable[..., PretrainConfig],
    small_task: Callable[..., FinetuneConfig],
    tmp_path: Path,
) -> Use:
    """(store, allowed=False): the regions of the store meet the weights of a checkpoint."""

    def run(store: Path, *, allowed: bool = False) -> object:
        if request.param == "pretrain":
            names = (f"model.pretrained={pretrained}", f"model.tokenizer={pretrained}")
            config = small("train.steps=1", *names)
            return pretrain([store], tmp_path, config, allow_other_regions=allowed)
        if request.param == "finetune":
            config = small_task("train.steps=1")
            where = (task_of(), [annotations], store, pretrained, tmp_path, config)
            return finetune(*where, allow_other_regions=allowed)
        options = EvalOptions(split="test", allow_other_regions=allowed)
        return evaluate(task_of(), tuned, [annotations], store, tmp_path, options)

    return run


def profile_of(checkpoint: Path) -> Any:
    return json.loads((checkpoint / "config.json").read_text())["region_profile"]


def test_a_checkpoint_tells_the_whole_profile(own: Path, pretrained: Path, tuned: Path) -> None:
    with open_store(own) as store:
        assert profile_of(pretrained) == profile_of(tuned) == store.manifest.extractor
    assert AutoConfig.from_pretrained(tuned).region_profile == {"network": "drawn", **OWN}
    card = (tuned / "README.md").read_text()
    assert "| regions: selection.min_regions | 36 |" in card


def test_other_regions_are_refused_and_the_differences_shown(
    use: Use, other: tuple[Path, str], own: Path, tmp_path: Path
) -> None:
    path, difference = other
    with pytest.raises(InputError, match="--allow-other-regions") as caught:
        use(path)
    assert difference in str(caught.value)
    assert str(path) in str(caught.value)
    assert "drawn" not in str(caught.value), "what is equal is not told"


def test_other_regions_are_taken_by_who_allows_them(
    use: Use, other: tuple[Path, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path, difference = other
    use(path, allowed=True)
    assert difference in caplog.text
    if (tmp_path / "last").exists():  # what is trained on them knows them from then on
        with open_store(path) as store:
            assert profile_of(tmp_path / "last") == store.manifest.extractor


def test_a_checkpoint_of_before_is_believed_with_one_warning(
    other: tuple[Path, str],
    pretrained: Path,
    annotations: Path,
    small_task: Callable[..., FinetuneConfig],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for file in pretrained.iterdir():
        if file.is_file():
            (older / file.name).write_bytes(file.read_bytes())
    config = json.loads((older / "config.json").read_text())
    (older / "config.json").write_text(json.dumps({**config, "region_profile": None}))
    run = tmp_path / "run"
    finetune(task_of(), [annotations], other[0], older, run, small_task("train.steps=1"))
    told = [m for m in caplog.messages if "does not say which regions it was trained on" in m]
    assert len(told) == 1
    with open_store(other[0]) as store:
        assert profile_of(run / "last") == store.manifest.extractor
