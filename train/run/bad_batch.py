"""A step that cannot be: its batch is named in a file, so that it can be looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from semvlp.atomic import write_json
from semvlp.errors import SemVLPError
from semvlp.train.step import MicroBatch, StepResult


def not_finite(
    run: Path, step: int, rank: int, batch: Mapping[str, Any], found: StepResult
) -> SemVLPError:
    """What to raise where loss or gradient of `step` is NaN or infinite."""
    losses = {name: str(loss) for name, loss in found.losses.items()}
    numbers = {"loss": str(found.loss), "grad_norm": str(found.grad_norm), "losses": losses}
    path = _write(run, step, rank, {**numbers, **batch})
    return SemVLPError(
        f"loss and gradient must be finite, but step {step} has loss {found.loss} and gradient "
        f"norm {found.grad_norm}; its weights were not updated, its images are named in {path}; "
        "lower train.lr or lengthen train.warmup_ratio and start anew with --overwrite"
    )


def out_of_memory(
    run: Path, step: int, rank: int, batch: Mapping[str, Any], device: torch.device
) -> SemVLPError:
    """What to raise where the device is too small for `step`."""
    path = _write(run, step, rank, dict(batch))
    largest = max(batch["parts"], key=lambda part: part["tokens"] + part["regions"])
    return SemVLPError(
        f"{device} is out of memory at step {step}; its largest part has {largest['pairs']} pairs "
        f"with {largest['tokens']} tokens and {largest['regions']} regions, named in {path}; set "
        "train.max_rows_per_micro_batch or train.gradient_accumulation_steps, which cut a step "
        "into smaller parts, or "
        "train.activation_checkpointing"
    )


def described(parts: Sequence[MicroBatch]) -> dict[str, Any]:
    """What a step was made of: sizes of its parts, and the ids of its images."""
    return {
        "parts": [
            {
                "pairs": part.batch.num_pairs,
                "tokens": int(part.batch.text_lengths.sum()),
                "regions": int(part.batch.region_lengths.sum()),
            }
            for part in parts
        ],
        "image_ids": [image_id for part in parts for image_id in part.image_ids],
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU, or on the CPU, which has no error type of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _write(run: Path, step: int, rank: int, entry: Mapping[str, Any]) -> Path:
    path = run / f"bad-batch-step-{step:07d}-rank-{rank}.json"
    write_json(path, {"step": step, **entry})
    return path
