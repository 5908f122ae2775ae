"""Presets, refusals, and the round trip through config.json."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from semvlp.model import SemVLPConfig


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", (3, 128, 4, 512, 3)),
        ("small", (6, 256, 4, 1024, 3)),
        ("base", (12, 768, 12, 3072, 6)),
        ("large", (24, 1024, 16, 4096, 12)),
    ],
)
def test_presets(name: str, sizes: tuple[int, ...]) -> None:
    config = SemVLPConfig.preset(name)
    assert sizes == (
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.cross_layers,
    )


def test_preset_with_overrides() -> None:
    config = SemVLPConfig.preset("tiny", cross_layers=0, hidden_dropout_prob=0)
    assert (config.cross_layers, config.hidden_dropout_prob, config.hidden_size) == (0, 0, 128)


def test_default_is_base() -> None:
    assert SemVLPConfig().to_dict() == SemVLPConfig.preset("base").to_dict()


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'hiden_size' is not a field.*'hidden_size'"):
        SemVLPConfig.preset("tiny", hiden_size=3)
    with pytest.raises(ValueError, match=r"one of tiny, small, base, large, got 'huge'"):
        SemVLPConfig.preset("huge")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hidden_size": 10, "num_attention_heads": 4},
            "multiple of num_attention_heads.*10 and 4",
        ),
        ({"cross_layers": 13}, "between 0 and num_hidden_layers = 12, got 13"),
        ({"cross_layers": -1}, "got -1"),
        ({"answers": ["a", "b", "a"]}, "answers must differ, got 'a' more than once"),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemVLPConfig(**fields)


def test_labels_keep_their_order_in_config_json(tmp_path: Path) -> None:
    labels = [f"label {index}" for index in range(12)]
    config = SemVLPConfig(answers=["ja", "ñ"]).for_task("pooled", labels, hidden_dropout_prob=0.3)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, SemVLPConfig)
    assert again.labels == labels
    assert again.label2id == {label: index for index, label in enumerate(labels)}
    assert (again.task_head, again.hidden_dropout_prob, again.answers) == ("pooled", 0.3, [])


def test_task_labels_are_checked() -> None:
    config = SemVLPConfig()
    with pytest.raises(ValueError, match="labels must differ"):
        config.for_task("pooled", ["a", "a"])
    with pytest.raises(ValueError, match="at least one"):
        config.for_task("pooled", [])
    with pytest.raises(ValueError, match="two labels, no match and match, got 3"):
        config.for_task("match", ["a", "b", "c"])
    with pytest.raises(ValueError, match="'droput' is not a field"):
        config.for_task("pooled", ["a"], droput=0.1)
