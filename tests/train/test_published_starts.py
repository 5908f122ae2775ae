"""Weights of other networks that pre-training and fine-tuning begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LxmertConfig, LxmertForPreTraining, LxmertModel

from semvlp.errors import ConfigError
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer
from semvlp.model.weights import WeightsError
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain
from tests.train.conftest import FEATURE_SIZE
from tests.train.finetuning import task_of

AS_LXMERT = ("model.num_layers=5", "model.cross_layers=2", "model.box_encoding=linear")


@pytest.fixture(scope="module")
def lxmert(init: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LXMERT of the width of `tiny`, with the vocabulary of `init`."""
    folder = tmp_path_factory.mktemp("lxmert")
    tokenizer = load_tokenizer(str(init))
    sizes = LxmertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_attention_heads=4,
        intermediate_size=512,
        l_layers=3,
        r_layers=2,
        x_layers=2,
        visual_feat_dim=FEATURE_SIZE,
        num_qa_labels=3,
    )
    LxmertForPreTraining(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def check_is_lxmert(model: SemVLPForPreTraining | SemVLPForTask, folder: Path) -> None:
    """Its layers are there, lower and upper, and it takes features as they are."""
    theirs, own = LxmertModel.from_pretrained(folder).state_dict(), model.semvlp.state_dict()
    for name, ours in {
        "embeddings.word_embeddings.weight": "text_embeddings.word_embeddings.weight",
        "encoder.layer.2.output.dense.weight": "encoder.blocks.2.feed_forward.outer.weight",
        "encoder.x_layers.1.visual_attention.att.query.weight": (
            "encoder.blocks.4.cross_attention.query.weight"
        ),
        "encoder.visn_fc.box_fc.bias": "region_embeddings.boxes.bias",
    }.items():
        assert torch.equal(own[ours], theirs[name]), name
    assert not model.semvlp.region_embeddings.feature_mean.any()


def test_fine_tuning_from_an_lxmert(
    annotations: Path,
    shards: Path,
    lxmert: Path,
    small_task: Callable[..., FinetuneConfig],
    tmp_path: Path,
) -> None:
    config = small_task("train.steps=1", "train.lr=0.0", *AS_LXMERT)
    finetune(task_of(), [annotations], shards, lxmert, tmp_path, config)
    check_is_lxmert(SemVLPForTask.from_pretrained(tmp_path / "last"), lxmert)


def test_pre_training_from_an_lxmert(
    shards: Path, lxmert: Path, small: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    names = (f"model.pretrained={lxmert}", f"model.tokenizer={lxmert}")
    config = small("train.steps=1", "train.lr=0.0", *AS_LXMERT, *names)
    pretrain([shards], tmp_path, config)
    check_is_lxmert(SemVLPForPreTraining.from_pretrained(tmp_path / "last"), lxmert)


def test_the_setting_that_an_lxmert_lacks_is_named(
    annotations: Path,
    shards: Path,
    lxmert: Path,
    small_task: Callable[..., FinetuneConfig],
    tmp_path: Path,
) -> None:
    config = small_task("train.steps=1")
    with pytest.raises(WeightsError, match=r"= 5, got 3; set model\.num_layers"):
        finetune(task_of(), [annotations], shards, lxmert, tmp_path, config)


def test_a_learned_scale_of_features_is_kept(
    annotations: Path,
    shards: Path,
    init: Path,
    small: Callable[..., PretrainConfig],
    small_task: Callable[..., FinetuneConfig],
    tmp_path: Path,
) -> None:
    """Whether pre-training or fine-tuning goes on with the encoder, and `standardise` is on."""
    earlier = SemVLPForPreTraining.from_pretrained(init)
    earlier.semvlp.region_embeddings.feature_mean.fill_(3)
    earlier.save_pretrained(tmp_path / "earlier")
    load_tokenizer(str(init)).save_pretrained(tmp_path / "earlier")
    name = str(tmp_path / "earlier")
    start = (f"model.pretrained={name}", f"model.tokenizer={name}", "train.steps=1")
    pretrain([shards], tmp_path / "pretrain", small(*start))
    finetune(task_of(), [annotations], shards, None, tmp_path / "finetune", small_task(*start))
    for kind, run in ((SemVLPForPreTraining, "pretrain"), (SemVLPForTask, "finetune")):
        found = kind.from_pretrained(tmp_path / run / "last")
        assert found.semvlp.region_embeddings.feature_mean.tolist() == [3.0] * FEATURE_SIZE


def test_every_weight_that_is_not_loaded_is_told_loudly(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Callable[..., FinetuneConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    finetune(task_of(), [annotations], shards, init, tmp_path, small_task("train.steps=1"))
    told = [record for record in caplog.records if "tensors loaded" in record.message]
    assert [record.levelname for record in told] == ["WARNING"]
    for part in ("token_head.decoder (1)", "match_head (2)", "region_head.objects (2)"):
        assert part in told[0].message
    assert told[0].message.endswith("3 of 3 labels known from pre-training")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layers=0", "num_layers must be at least 1, got 0"),
        ("model.cross_layers=4", "cross_layers must be between 0 and num_hidden_layers = 3, got 4"),
    ],
)
def test_numbers_of_layers_that_cannot_be(
    shards: Path, small: Callable[..., PretrainConfig], tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain([shards], tmp_path, small(override))
