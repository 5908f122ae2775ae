"""Settings: defaults, rules between fields, the recipes that come with the package."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch

from semvlp import settings
from semvlp.errors import ConfigError
from semvlp.eval.tasks.table import TASKS
from semvlp.model.config import PRESETS, SemVLPConfig
from semvlp.model.layers.attention import varlen_obstacle
from semvlp.names import SizePreset
from semvlp.train.config import (
    OBJECTIVES,
    FinetuneConfig,
    ModelConfig,
    ObjectivesConfig,
    PretrainConfig,
)
from semvlp.train.initial_model import dropout
from semvlp.train.recipes import RECIPES, find_config

ROOT = Path(__file__).resolve().parents[2]


def test_there_are_recipes() -> None:
    names = set(RECIPES)
    assert names >= {"semvlp_base", "semvlp_large", "tiny"}
    assert names >= {"lxmert_like", "uniter_like", "visualbert_like"}
    assert names >= {f"finetune_{task.replace('-', '_')}" for task in TASKS}


def kind_of(path: Path) -> type[PretrainConfig | FinetuneConfig]:
    return FinetuneConfig if path.name.startswith("finetune") else PretrainConfig


@pytest.mark.parametrize("path", RECIPES.values(), ids=lambda path: path.name)
def test_a_recipe_is_read_and_written_back(path: Path, tmp_path: Path) -> None:
    config = settings.load(kind_of(path), path)
    copy = tmp_path / "copy.toml"
    copy.write_text(settings.to_toml(config))
    assert settings.load(kind_of(path), copy) == config


@pytest.mark.parametrize("path", RECIPES.values(), ids=lambda path: path.name)
def test_a_recipe_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert f"--config {path.stem} " in path.read_text()
    assert path.read_text().split("\n")[0].endswith(":")


def test_a_configuration_is_a_path_or_the_name_of_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("tiny")) == find_config(Path("tiny.toml")) == RECIPES["tiny"]
    Path("tiny").mkdir()
    assert find_config(Path("tiny")) == RECIPES["tiny"]
    own = Path("tiny.toml")
    own.write_text("[train]\nsteps = 3\n")
    assert find_config(own) == own


@pytest.mark.parametrize("given", ["semvlp_bsae", "configs/semvlp_base.toml", "no/such"])
def test_an_unknown_configuration_lists_the_recipes(given: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{given}: no such .*recipes: .*, semvlp_base, "
    ) as error:
        find_config(Path(given))
    assert ("did you mean --config semvlp_base?" in str(error.value)) == (
        "base" in given or "bsae" in given
    )


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
        ("train.warmup_ratio=1.5", "warmup_ratio"),
        ("train.schedule=both", "train.schedule"),
        ("model.dropout=1.0", "dropout"),
        ("model.attention_dropout=1.0", "attention_dropout"),
        ("model.pretrained=bert-base-uncased", "tokenizer"),
        ("objectives.mask_rate=0.2", "objectives.mask_rate"),
        ("objectives.token_rate=2.0", "token_rate"),
        ("data.max_regions=0", "max_regions"),
        ("data.texts_per_image=3", "data.texts_per_image"),
        ("train.lr=nan", "lr"),
        ("train.ema_decay=1.0", "ema_decay"),
        ("objectives.region_random=0.5", "region_zeroed and region_random"),
        ("objectives.negatives=image", "objectives.negatives"),
        ("model.box_size=6", "model.box_size"),
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


@pytest.mark.parametrize("kind", [PretrainConfig, FinetuneConfig])
def test_every_setting_stands_in_the_documentation(
    kind: type[PretrainConfig | FinetuneConfig],
) -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    for table in fields(kind):
        for setting in fields(table.default_factory):  # type: ignore[arg-type]
            assert f"`{table.name}.{setting.name}`" in page


def test_every_size_of_the_model_can_be_set() -> None:
    assert get_args(SizePreset) == tuple(PRESETS)


@pytest.mark.parametrize("name", ["semvlp_base", "semvlp_large"])
def test_the_presets_of_this_project_may_train_with_the_flash_kernel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    config = settings.load(PretrainConfig, RECIPES[name])
    assert config.train.precision == "bf16"
    network = SemVLPConfig.preset(config.model.preset, **dropout(config.model))
    obstacle = varlen_obstacle(
        torch.device("cuda"),
        torch.bfloat16,
        dropout=network.attention_probs_dropout_prob,
        head_width=network.hidden_size // network.num_attention_heads,
    )
    assert obstacle is None


def test_attention_may_have_a_dropout_of_its_own() -> None:
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    for own, expected in ((None, 0.2), (0.0, 0.0)):
        rates = dropout(ModelConfig(dropout=0.2, attention_dropout=own))
        assert rates == dict(zip(fields, (0.2, expected), strict=True))
