"""Which decoded anchors become proposals, by detectron2's rule (proposal_utils.py)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from semvlp.extract.detectors.on_torchvision.fpn import ResNetFPN
from semvlp.extract.detectors.on_torchvision.rpn import Proposer, region_proposal_network
from semvlp.extract.networks import NETWORKS

CONFIG = replace(NETWORKS["resnet50_fpn"], num_candidates=3, num_proposals=4)
SIZE = (100, 200)


@pytest.fixture(scope="module")
def proposer() -> Proposer:
    return region_proposal_network(CONFIG, 256, ResNetFPN.strides).eval()


def boxes_at(*places: float) -> Tensor:
    """[N, 4] squares that touch nobody whose place is 20 away."""
    return torch.tensor([[x, 10.0, x + 15, 25.0] for x in places])


def proposals(proposer: Proposer, boxes: Tensor, logits: list[float], maps: list[int]) -> Tensor:
    (found,), (scores,) = proposer.filter_proposals(
        boxes[None], torch.tensor(logits)[:, None], [SIZE], maps
    )
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    return found


def test_sure_proposals_keep_their_order(proposer: Proposer) -> None:
    logits = [20.0, 40.0, 30.0]
    assert (torch.tensor(logits).sigmoid() == 1).all(), "else probabilities would order them too"
    found = proposals(proposer, boxes_at(0, 20, 40), logits, [3])
    assert torch.equal(found, boxes_at(20, 40, 0))


def test_the_surer_of_two_alike_survives(proposer: Proposer) -> None:
    found = proposals(proposer, boxes_at(0, 1), [20.0, 40.0], [2])
    assert torch.equal(found, boxes_at(1))


def test_maps_do_not_suppress_each_other(proposer: Proposer) -> None:
    found = proposals(proposer, boxes_at(0, 1, 0), [1.0, 2.0, 3.0], [2, 1])
    assert torch.equal(found, boxes_at(0, 1))


def test_candidates_are_the_likeliest_of_each_map(proposer: Proposer) -> None:
    places = (0, 20, 40, 60, 80, 100)
    found = proposals(proposer, boxes_at(*places), [9.0, 8.0, 7.0, 6.0, 1.0, 2.0], [4, 2])
    # Three of the first map, both of the second, and four of all.
    assert torch.equal(found, boxes_at(0, 20, 40, 100))


def test_proposals_end_at_the_border_and_empty_ones_are_none(proposer: Proposer) -> None:
    over = torch.tensor([[190.0, -5.0, 230.0, 120.0], [210.0, 10.0, 220.0, 20.0]])
    found = proposals(proposer, over, [1.0, 2.0], [2])
    assert found.tolist() == [[190.0, 0.0, 200.0, 100.0]]


def test_thin_proposals_are_proposals_as_in_detectron2(proposer: Proposer) -> None:
    thin = torch.tensor([[10.0, 10.0, 10.0005, 25.0], [50.0, 10.0, 50.0, 25.0]])
    found = proposals(proposer, thin, [1.0, 2.0], [2])
    assert torch.equal(found, thin[:1])
