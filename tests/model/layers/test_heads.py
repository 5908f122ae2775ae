"""Heads and region embeddings against their definitions, written out."""

import pytest
import torch
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from semvlp.model import SemVLPConfig
from semvlp.model.layers.embeddings import RegionEmbeddings
from semvlp.model.layers.heads import AnswerHead, RegionHead, TokenHead


def test_token_head_is_berts(config: SemVLPConfig) -> None:
    own, bert = TokenHead(config), BertLMPredictionHead(BertConfig(vocab_size=40, hidden_size=16))
    bert.transform.dense.load_state_dict(own.transform.dense.state_dict())
    bert.decoder.load_state_dict(own.decoder.state_dict())
    hidden = 3 * torch.randn(5, 16)
    torch.testing.assert_close(own(hidden), bert(hidden))


def test_region_head_shares_one_transform(config: SemVLPConfig) -> None:
    head, hidden = RegionHead(config), 3 * torch.randn(5, 16)
    shared = functional.layer_norm(functional.gelu(head.transform.dense(hidden)), (16,), eps=1e-12)
    for layer, output in zip(
        (head.features, head.objects, head.attributes), head(hidden), strict=True
    ):
        assert layer is not None
        torch.testing.assert_close(output, layer(shared))


@pytest.mark.parametrize("pieces", [1, 2])
def test_answer_head_is_lxmerts(config: SemVLPConfig, pieces: int) -> None:
    head, pooled = AnswerHead(config, 7, pieces=pieces), 3 * torch.randn(5, 16 * pieces)
    inner = functional.layer_norm(functional.gelu(head.inner(pooled)), (32,), eps=1e-12)
    torch.testing.assert_close(head(pooled), head.outer(inner))


def test_region_embeddings_are_lxmerts_plus_type_and_mask(config: SemVLPConfig) -> None:
    embeddings = RegionEmbeddings(config).eval()
    with torch.no_grad():
        embeddings.mask.normal_()
    features, boxes, token_type = torch.randn(3, 6), torch.rand(3, 4), torch.randn(16)
    mask = torch.tensor([False, True, False])
    projected = embeddings.features(features.masked_fill(mask[:, None], 0))
    projected[1] += embeddings.mask
    mean = (
        functional.layer_norm(projected, (16,), eps=1e-5)
        + functional.layer_norm(embeddings.boxes(boxes), (16,), eps=1e-5)
    ) / 2
    actual = embeddings(features, boxes, mask, token_type)
    torch.testing.assert_close(actual, mean + token_type)


@pytest.mark.parametrize(("masked", "limit"), [(True, 1e3), (False, 1e4)])
def test_a_zeroed_region_has_a_gradient_of_ordinary_size(
    config: SemVLPConfig, masked: bool, limit: float
) -> None:
    embeddings = RegionEmbeddings(config)
    with torch.no_grad():  # as a new model starts
        embeddings.features.bias.zero_()
        embeddings.mask.normal_(std=0.02)
    mask = torch.full((3,), masked)
    output = embeddings(torch.zeros(3, 6), torch.rand(3, 4), mask, torch.zeros(16))
    output.pow(2).sum().backward()
    gradient = embeddings.features.bias.grad
    assert gradient is not None
    assert 1 < gradient.norm() < limit
