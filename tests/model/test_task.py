"""SemVLPForTask: its heads, and what it takes over from a pre-training checkpoint."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semvlp.errors import InputError
from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPForTask
from semvlp.model.config import TaskHead
from semvlp.model.packing import Mode
from semvlp.model.task_network import TaskNetwork
from semvlp.model.weights import WeightsError
from semvlp.names import ImageToken

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (3, 4), (2, 1), (2, 0)]
QUERY = "semvlp.encoder.blocks.0.self_attention.query.weight"


@pytest.fixture
def pretrained(config: SemVLPConfig, tmp_path: Path) -> SemVLPForPreTraining:
    """A pre-training model, saved in tmp_path."""
    model = SemVLPForPreTraining(config).eval()
    model.save_pretrained(tmp_path)
    return model


def change(directory: Path, **tensors: torch.Tensor | None) -> None:
    """Replace, add or (None) take away tensors of a checkpoint; `__` stands for a dot."""
    file = directory / "model.safetensors"
    state = load_file(file)
    for name, tensor in tensors.items():
        if tensor is None:
            del state[name.replace("__", ".")]
        else:
            state[name.replace("__", ".")] = tensor
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("head", "labels", "shape"),
    [
        ("pooled", ["a", "b", "c"], (4, 3)),
        ("pair", ["a", "b", "c"], (2, 3)),
        ("match", "01", (4, 2)),
        ("region", ["referred"], (4, 4)),
    ],
)
def test_shapes_and_round_trip(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    tmp_path: Path,
    head: TaskHead,
    labels: list[str],
    shape: tuple[int, int],
) -> None:
    model = SemVLPForTask(config.for_task(head, list(labels))).eval()
    logits = model(make_batch(LENGTHS), "two").logits
    assert logits.shape == shape
    model.save_pretrained(tmp_path)
    for again in SemVLPForTask.from_pretrained(tmp_path), TaskNetwork.from_checkpoint(tmp_path):
        assert again.config.labels == list(labels)
        torch.testing.assert_close(again(make_batch(LENGTHS), "two").logits, logits)


def test_a_network_is_opened_in_float32_and_ready_to_answer(
    config: SemVLPConfig, tmp_path: Path
) -> None:
    config = config.for_task("pooled", ["yes", "no"])
    SemVLPForTask(config).to(torch.bfloat16).save_pretrained(tmp_path)
    network = TaskNetwork.from_checkpoint(tmp_path)
    assert not network.training
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_pair_head_joins_neighbours_in_order(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model = SemVLPForTask(config.for_task("pair", ["a", "b"])).eval()
    batch = make_batch(LENGTHS)
    pooled = model.semvlp(batch, "single").pooled
    expected = model.head(torch.cat([pooled[0::2], pooled[1::2]], dim=1))
    torch.testing.assert_close(model(batch, "single").logits, expected)
    with pytest.raises(ValueError, match="odd number of pairs: 3"):
        model(make_batch(LENGTHS[:3]), "single")


@pytest.mark.parametrize("mode", ["single", "two"])
@pytest.mark.parametrize("image_token", ["none", "mean"])
def test_region_head_scores_the_regions_of_each_pair_by_itself(
    config: SemVLPConfig, make_batch: MakeBatch, mode: Mode, image_token: ImageToken
) -> None:
    config = dataclasses.replace(config, image_token=image_token)
    model = SemVLPForTask(config.for_task("region", ["referred"])).eval()
    logits = model(make_batch(LENGTHS), mode).logits
    regions = model.semvlp(make_batch(LENGTHS), mode).regions
    expected = model.head.score(model.head.transform(regions)).squeeze(1)
    counts = [count for _, count in LENGTHS]
    for row, own in zip(logits, expected.split(counts), strict=True):
        torch.testing.assert_close(row[: len(own)], own)
        assert (row[len(own) :] == torch.finfo(row.dtype).min).all()


def test_region_head_without_any_region(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model = SemVLPForTask(config.for_task("region", ["referred"])).eval()
    assert model(make_batch([(3, 0), (2, 0)]), "two").logits.shape == (2, 0)
    with pytest.raises(ValueError, match="the region head has one label for every region"):
        config.for_task("region", ["a", "b"])


def test_a_head_must_be_named(config: SemVLPConfig) -> None:
    with pytest.raises(ValueError, match="task_head must be pooled, pair, match or region"):
        SemVLPForTask(config)


def test_pooled_head_takes_the_rows_of_known_labels(
    pretrained: SemVLPForPreTraining, make_batch: MakeBatch, tmp_path: Path
) -> None:
    model, report = SemVLPForTask.from_pretraining(
        tmp_path, head="pooled", labels=["red", "green", "yes"]
    )
    model.eval()
    batch = make_batch(LENGTHS)
    answers = pretrained.answer_head(pretrained.semvlp(batch, "two").pooled)
    logits = model(batch, "two").logits
    torch.testing.assert_close(logits[:, 0], answers[:, 2])
    torch.testing.assert_close(logits[:, 2], answers[:, 0])
    assert not logits[:, 1].any()
    assert report.labels == ("red", "yes")
    assert report.new == ()
    assert set(report.loaded) == set(model.state_dict())
    assert {name.split(".")[0] for name in report.unused} == {
        "token_head",
        "region_head",
        "match_head",
    }
    assert report.source == str(tmp_path / "model.safetensors")


def test_match_head_comes_from_the_matching_head(
    pretrained: SemVLPForPreTraining, make_batch: MakeBatch, tmp_path: Path
) -> None:
    model, report = SemVLPForTask.from_pretraining(tmp_path, head="match", labels=["no", "yes"])
    batch = make_batch(LENGTHS)
    expected = pretrained.match_head(pretrained.semvlp(batch, "single").pooled)
    torch.testing.assert_close(model.eval()(batch, "single").logits, expected)
    assert {name for name in report.loaded if not name.startswith("semvlp.")} == {
        "head.weight",
        "head.bias",
    }


def test_pair_head_is_new(pretrained: SemVLPForPreTraining, tmp_path: Path) -> None:
    model, report = SemVLPForTask.from_pretraining(
        tmp_path, head="pair", labels=["False", "True"], hidden_dropout_prob=0.25
    )
    assert {name.split(".")[0] for name in report.new} == {"head"}
    assert model.config.hidden_dropout_prob == model.semvlp.encoder.blocks[0].dropout.p == 0.25
    assert torch.equal(model.semvlp.pooler.weight, pretrained.semvlp.pooler.weight)


def test_pooled_head_is_new_without_an_answer_head(config: SemVLPConfig, tmp_path: Path) -> None:
    SemVLPForPreTraining(dataclasses.replace(config, answers=[])).save_pretrained(tmp_path)
    model, report = SemVLPForTask.from_pretraining(tmp_path, head="pooled", labels=["yes"])
    assert {name.split(".")[0] for name in report.new} == {"head"}
    assert report.labels == ()
    assert model.get_parameter("head.outer.weight").any()


@pytest.mark.usefixtures("pretrained")
@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({QUERY.replace(".", "__"): torch.zeros(16, 15)}, [QUERY, "[16, 16]", "[16, 15]"]),
        ({QUERY.replace(".", "__"): None}, [QUERY, "[16, 16]", "is missing"]),
        ({"semvlp__extra": torch.zeros(2)}, ["semvlp.extra", "[2]", "no place"]),
        ({"answer_head__norm__weight": torch.zeros(3)}, ["head.norm.weight", "[32]", "[3]"]),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], words: list[str]
) -> None:
    change(tmp_path, **tensors)
    with pytest.raises(WeightsError) as caught:
        SemVLPForTask.from_pretraining(tmp_path, head="pooled", labels=["yes"])
    assert isinstance(caught.value, ValueError)
    for word in ["model.safetensors", *words]:
        assert word in str(caught.value)


@pytest.mark.usefixtures("pretrained")
def test_overrides_that_change_the_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cross_layers must be those of the checkpoint"):
        SemVLPForTask.from_pretraining(tmp_path, head="pair", labels=["a"], cross_layers=1)
    with pytest.raises(WeightsError, match=re.escape("word_embeddings.weight must be [50, 16]")):
        SemVLPForTask.from_pretraining(tmp_path, head="pair", labels=["a"], vocab_size=50)


def test_a_directory_that_is_no_checkpoint(config: SemVLPConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold config\.json"):
        SemVLPForTask.from_pretraining(tmp_path, head="pair", labels=["a"])
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"must hold model\.safetensors"):
        SemVLPForTask.from_pretraining(tmp_path, head="pair", labels=["a"])
    (tmp_path / "model.safetensors").write_bytes(b"\x05")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        SemVLPForTask.from_pretraining(tmp_path, head="pair", labels=["a"])
