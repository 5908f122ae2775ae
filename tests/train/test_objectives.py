"""The losses against their definitions, written out."""

import math

import pytest
import torch

from semvlp.train.config import ObjectivesConfig
from semvlp.train.objectives import (
    IGNORED,
    image_question_answering,
    image_text_matching,
    masked_features,
    masked_tokens,
    pretraining_losses,
    region_classes,
)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def test_tokens_are_summed() -> None:
    logits = [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]
    expected = -log_softmax(logits[0])[1] - log_softmax(logits[1])[0]
    loss = masked_tokens(torch.tensor(logits), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_features_are_smooth_l1_averaged_over_the_feature() -> None:
    predicted, features = torch.tensor([[0.5, 3.0]]), torch.tensor([[0.0, 0.0]])
    assert masked_features(predicted, features).item() == pytest.approx((0.125 + 2.5) / 2)


def test_classes_weigh_by_confidence_and_leave_out() -> None:
    logits = [[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]
    expected = -0.5 * log_softmax(logits[0])[0] - 0.25 * log_softmax(logits[1])[0]
    loss = region_classes(
        torch.tensor(logits), torch.tensor([0, 0, IGNORED]), torch.tensor([0.5, 0.25, 1.0])
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_matching_class_one_means_match() -> None:
    sure = torch.tensor([[-9.0, 9.0], [9.0, -9.0], [9.0, -9.0]])
    right = image_text_matching(sure, torch.tensor([1, 0, IGNORED]))
    wrong = image_text_matching(sure, torch.tensor([0, 1, IGNORED]))
    assert right.item() < 1e-5
    assert wrong.item() == pytest.approx(36, rel=1e-4)


def test_answers_are_soft_cross_entropy() -> None:
    logits = [0.3, -0.2, 1.0]
    expected = -(0.75 * log_softmax(logits)[0] + 0.25 * log_softmax(logits)[2])
    loss = image_question_answering(torch.tensor([logits]), torch.tensor([[0.9, 0.0, 0.3]]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_features_may_be_squares() -> None:
    predicted, features = torch.tensor([[0.5, 3.0]]), torch.tensor([[0.0, 0.0]])
    assert masked_features(predicted, features, "mse").item() == pytest.approx((0.25 + 9) / 2)


def test_divergence_is_from_the_confidence_and_an_even_rest() -> None:
    logits, conf = [1.0, -0.5, 2.0], 0.6
    share = [0.2, 0.6, 0.2]
    pairs = zip(share, log_softmax(logits), strict=True)
    expected = sum(p * (math.log(p) - q) for p, q in pairs)
    rows, classes = torch.tensor([logits, logits]), torch.tensor([1, IGNORED])
    loss = region_classes(rows, classes, torch.tensor([conf, 1.0]), "kl")
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("conf", [0.0, 1.0, 0.7])
def test_divergence_is_least_where_the_network_agrees(conf: float) -> None:
    share = torch.tensor([[conf, (1 - conf) / 2, (1 - conf) / 2]])
    logits = share.clamp(min=1e-30).log().requires_grad_()
    loss = region_classes(logits, torch.tensor([0]), torch.tensor([conf]), "kl")
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(0, 5), (0, 0)])
def test_nothing_to_predict_is_zero_with_zero_gradient(shape: tuple[int, int]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    empty = torch.zeros(0, dtype=torch.int64)
    for loss in (
        masked_tokens(logits, empty),
        region_classes(logits, empty, torch.zeros(0)),
        region_classes(logits, empty, torch.zeros(0), "kl"),
        image_question_answering(logits, torch.zeros(shape)),
    ):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.shape == shape


def test_losses_of_half_precision_logits_are_float32() -> None:
    logits = torch.randn(3, 7, dtype=torch.bfloat16)
    loss = masked_tokens(logits, torch.tensor([0, 1, 2]))
    assert loss.dtype == torch.float32
    assert loss == masked_tokens(logits.float(), torch.tensor([0, 1, 2]))


def test_only_the_named_objectives_are_computed() -> None:
    class Output:
        token_logits = torch.zeros(1, 3)

    class Aim:
        token_ids = torch.tensor([0])

    losses = pretraining_losses(Output(), Aim(), ["mlm"], ObjectivesConfig())  # type: ignore[arg-type]
    assert list(losses) == ["mlm"]
    assert losses["mlm"].item() == pytest.approx(math.log(3))
