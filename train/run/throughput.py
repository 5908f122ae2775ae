"""How fast a run is and how well it uses its device: pure functions.

N pairs, T text tokens, R regions, D width, I width of the feed-forward, F feature size, V
vocabulary. One multiply-add counts as two operations, as in the data sheets of GPUs.
"""

from collections.abc import Mapping, Sequence

from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode, PackedBatch

BACKWARD = 2
"""A backward pass multiplies twice for each product of the forward pass."""


def step_flops(
    config: SemVLPConfig,
    batch: PackedBatch,
    mode: Mode,
    *,
    tokens: int = 0,
    regions: int = 0,
    questions: int = 0,
) -> float:
    """Count the floating-point operations of forward and backward over a packed batch.

    Counted are the matrix products that the mathematics needs: neither padding nor what activation
    checkpointing computes again.

    Args:
        tokens: how many the pre-training heads predict.
        regions: how many they predict.
        questions: how many they answer.
    """
    read = batch.num_pairs + tokens + regions
    forward = encoder_flops(config, batch, mode, read=read) + head_flops(
        config, tokens=tokens, regions=regions, pairs=batch.num_pairs, questions=questions
    )
    return forward * (1 + BACKWARD)


def encoder_flops(config: SemVLPConfig, batch: PackedBatch, mode: Mode, *, read: int) -> float:
    """Count the operations of one forward pass through region embedding, blocks and pooler.

    Of the last block's feed-forward only the `read` rows that the heads look at.
    """
    width, rows = config.hidden_size, int(batch.lengths.sum())
    text, regions = batch.text_lengths, batch.region_lengths
    inner = 2 * width * config.intermediate_size
    if mode == "single":
        seen, crossed = int((batch.lengths**2).sum()), 0
    else:
        seen = int((text**2 + regions**2).sum())
        crossed = 2 * int((text * regions).sum())
    # Attention multiplies twice: queries by keys, weights by values.
    layers = config.num_hidden_layers * (2 * rows * 4 * width**2 + 4 * width * seen)
    forward = 2 * inner * (rows * (config.num_hidden_layers - 1) + min(read, rows))
    cross = config.cross_layers * (2 * rows * 4 * width**2 + 4 * width * crossed)
    embedded = 2 * int(regions.sum()) * config.region_feature_size * width
    pooled = 2 * batch.num_pairs * width**2
    return float(embedded + layers + forward + pooled + (cross if mode == "two" else 0))


def head_flops(
    config: SemVLPConfig, *, tokens: int, regions: int, pairs: int, questions: int
) -> float:
    """Count the operations of one forward pass through the pre-training heads."""
    width = config.hidden_size
    classes = config.region_feature_size + config.num_objects + config.num_attributes
    answers = 2 * width * (width + len(config.answers or ()))
    return float(
        2 * tokens * width * (width + config.vocab_size)
        + 2 * regions * width * (width + classes)
        + 2 * pairs * width * 2
        + 2 * questions * answers
    )


def utilisation(flops: float, seconds: float, peak: float) -> float:
    """Return the model FLOPs utilisation in 0..1 (Chowdhery et al. 2022, appendix B)."""
    return flops / seconds / peak


def pairs_per_second(pairs: int, timings: Sequence[float]) -> float:
    """Return the pairs per second where each step has `pairs` and took the seconds in `timings`."""
    return pairs * len(timings) / sum(timings)


def seconds_left(step: int, steps: int, timings: Sequence[float]) -> float:
    """Return the expected time until the last step, at the pace of the latest ones."""
    return (steps - step) * sum(timings) / len(timings)


def hours(pairs: float, pairs_per_second: float) -> float:
    """Return the hours that pairs take, counted as often as seen; times GPUs: GPU hours."""
    return pairs / pairs_per_second / 3600


def counts_for_flops(counts: Mapping[str, float]) -> dict[str, int]:
    """Make the arguments of `step_flops` from the counts of a micro-batch."""
    names = {
        "tokens": ("mlm",),
        # Where classes are asked for of all regions, the head sees more than the masked ones.
        "regions": ("features", "objects"),
        "questions": ("answers",),
    }
    return {
        name: int(max(counts.get(objective, 0) for objective in objectives))
        for name, objectives in names.items()
    }
