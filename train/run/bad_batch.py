"""A step that cannot be: its batch is named in a file, so that it can be looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from semvlp.atomic import write_json
from semvlp.errors import SemVLPError
from semvlp.train.step import MicroBatch, StepResult


def not_finite(
    run: Path, step: int, rank: int, batch: Mapping[str, Any], result: StepResult
) -> SemVLPError:
    """Make the error of a `step` whose loss or gradient is NaN or infinite."""
    losses = {name: str(loss) for name, loss in result.losses.items()}
    numbers = {"loss": str(result.loss), "grad_norm": str(result.grad_norm), "losses": losses}
    path = _write(run, step, rank, {**numbers, **batch})
    return SemVLPError(
        f"loss and gradient must be finite, but step {step} has loss {result.loss} and gradient "
        f"norm {result.grad_norm}; its weights were not updated, its images are named in {path}; "
        "lower train.lr or lengthen train.warmup_ratio and start anew with --overwrite"
    )


def out_of_memory(
    run: Path, step: int, rank: int, batch: Mapping[str, Any], device: torch.device
) -> SemVLPError:
    """Make the error of a `step` that the device is too small for."""
    path = _write(run, step, rank, dict(batch))
    largest = max(batch["parts"], key=lambda one: one["tokens"] + one["regions"])
    return SemVLPError(
        f"{device} is out of memory at step {step}; its largest micro-batch has "
        f"{largest['pairs']} pairs with {largest['tokens']} tokens and {largest['regions']} "
        f"regions, named in {path}; set "
        "train.max_rows_per_micro_batch or train.gradient_accumulation_steps, which split a step "
        "into smaller ones, or train.activation_checkpointing"
    )


def described(micro_batches: Sequence[MicroBatch]) -> dict[str, Any]:
    """Describe a step: the sizes of its micro-batches (on disk `parts`), the ids of its images."""
    return {
        "parts": [
            {
                "pairs": one.batch.num_pairs,
                "tokens": int(one.batch.text_lengths.sum()),
                "regions": int(one.batch.region_lengths.sum()),
            }
            for one in micro_batches
        ],
        "image_ids": [image_id for one in micro_batches for image_id in one.image_ids],
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: on a GPU, or on the CPU, which has no error type of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _write(run: Path, step: int, rank: int, entry: Mapping[str, Any]) -> Path:
    path = run / f"bad-batch-step-{step:07d}-rank-{rank}.json"
    write_json(path, {"step": step, **entry})
    return path
