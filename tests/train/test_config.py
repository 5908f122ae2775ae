"""Settings: defaults, rules between fields, the files in configs/."""

from pathlib import Path

import pytest

from semvlp import settings
from semvlp.errors import ConfigError
from semvlp.train.config import OBJECTIVES, FinetuneConfig, ObjectivesConfig, PretrainConfig

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


def test_there_are_configs() -> None:
    assert {path.name for path in CONFIGS} >= {"semvlp_base.toml", "semvlp_large.toml", "tiny.toml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_is_read_and_written_back(path: Path, tmp_path: Path) -> None:
    config = settings.load(PretrainConfig, path)
    copy = tmp_path / "copy.toml"
    copy.write_text(settings.to_toml(config))
    assert settings.load(PretrainConfig, copy) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert f"--config configs/{path.name}" in path.read_text()


def test_fine_tuning_has_defaults_of_its_own() -> None:
    config = FinetuneConfig()
    assert (config.train.batch_size, config.train.steps, config.train.epochs) == (32, 0, 4.0)
    assert config.train.schedule == "alternate"


def test_weights_name_every_objective_in_order() -> None:
    config = ObjectivesConfig(mlm=2.0, answers=0.0)
    assert tuple(config.weights()) == OBJECTIVES
    assert (config.weights()["mlm"], config.weights()["answers"]) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.steps=0", "train.steps"),
        ("train.save_every=0", "train.save_every"),
        ("train.batch_size=0", "batch_size"),
        ("train.lr=-1.0", "lr"),
        ("train.warmup=1.5", "warmup"),
        ("train.schedule=both", "train.schedule"),
        ("model.dropout=1.0", "dropout"),
        ("model.bert=bert-base-uncased", "tokenizer"),
        ("objectives.mask_rate=0.2", "objectives.mask_rate"),
        ("objectives.token_rate=2.0", "token_rate"),
        ("data.max_regions=0", "max_regions"),
        ("data.texts_per_image=3", "data.texts_per_image"),
        ("train.lr=nan", "lr"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.load(PretrainConfig, None, [override])


def test_all_objectives_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one objective"):
        settings.load(PretrainConfig, None, [f"objectives.{name}=0.0" for name in OBJECTIVES])


def test_images_per_step_counts_texts() -> None:
    config = settings.load(PretrainConfig, None, ["data.texts_per_image=4", "train.batch_size=12"])
    assert config.images_per_step == 3
