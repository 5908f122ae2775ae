"""Settings of the optimisation, and how single-stream and two-stream steps take turns.

The SemVLP paper (arXiv 2103.07829) does not state batch size, learning rate or mixing ratio where
we could verify them; the defaults follow LXMERT (airsplay/lxmert) unless a field says otherwise.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

from semvlp.names import Device, Precision
from semvlp.settings import also_called, formerly, require_at_least, require_between

ModeSchedule = Literal["alternate", "ratio", "single", "two"]
LrSchedule = Literal["linear", "cosine", "constant"]
WeightDecayOn = Literal["matrices", "all"]
Parallel = Literal["ddp", "fsdp"]
Optimizer = Literal["adamw", "muon"]
ClassWeights = Literal["equal", "balanced"]
TrackerName = Literal["none", "trackio", "wandb"]
ValidationMode = Literal["single", "two", "both"]


class Phase(NamedTuple):
    """A run of steps whose modes take turns in one way."""

    turns: ModeSchedule
    steps: float
    """How many; infinite in the last phase."""


def read_phase(text: str, *, is_last: bool) -> Phase:
    """Return the phase written as `single 100000`, or as `alternate` where it is the last.

    Raises:
        ValueError: it is written otherwise.
    """
    turns, *steps = text.split()
    written = "".join(steps)
    counted = int(written) if written.isdigit() else 0
    number = math.inf if is_last and not steps else counted
    if turns not in get_args(ModeSchedule) or number < 1 or (is_last and steps):
        raise ValueError(
            "schedule must name phases, each with its steps but the last without, such as "
            f'["single 100000", "alternate"], of {", ".join(get_args(ModeSchedule))}; got {text!r}'
        )
    return Phase(cast(ModeSchedule, turns), number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The optimisation: how long, how fast, how often something is written."""

    # The list first: an error then speaks of what can be written as one word.
    schedule: tuple[str, ...] | ModeSchedule = also_called("modes", "alternate")
    """Modes of the steps (the learning rate has `train.lr_schedule`). `alternate`: single, two,
    single, ...; `ratio`: drawn; `single` or `two`: that mode alone. Or phases, the last one open:
    ["single 100000", "alternate"]. `train.modes` is the same setting."""
    single_share: float = 0.5
    """Share of single-stream steps under `ratio`."""
    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 256
    """(text, image) pairs of one optimiser step, over all ranks and accumulated parts."""
    gradient_accumulation_steps: int = formerly("accumulate", 1)
    """Parts that a rank's share of a step is cut into, where memory is short."""
    max_rows_per_micro_batch: int = formerly("part_rows", 0)
    """Or cut it into parts of at most this many rows, tokens and regions together (UNITER: 10240 a
    GPU); 0 leaves it to `gradient_accumulation_steps`."""
    optimizer: Optimizer = "adamw"
    """`muon` gives the matrices of the blocks orthogonal updates (torch.optim.Muon), the rest
    AdamW's, at one learning rate. A tiny network learned drawn statements from less than half the
    pairs; not with `parallel` = fsdp."""
    lr: float = 1e-4
    """Peak learning rate."""
    warmup_ratio: float = formerly("warmup", 0.05)
    """Share of the steps over which the learning rate rises from zero."""
    lr_schedule: LrSchedule = formerly("decay", "linear")
    """How the learning rate falls to zero after the warm-up; `constant` does not."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    weight_decay_on: WeightDecayOn = formerly("decayed", "matrices")
    """What decays: the `matrices`, not biases and normalisation, or `all` (LXMERT)."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.98
    """AdamW's second moment (UNITER)."""
    max_grad_norm: float = formerly("clip", 1.0)
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = formerly("average", 0.0)
    """Decay of a moving average of the weights, which then is what is validated and saved, for
    instance 0.9999; 0 keeps none."""
    seed: int = 0
    """Everything random follows from it."""
    log_every: int = 10
    """Steps between two entries of metrics.jsonl; if modes alternate, the step before is logged
    too."""
    tracker: TrackerName = "none"
    """Show the run in Trackio or Weights & Biases too, project `semvlp` unless `TRACKIO_PROJECT` or
    `WANDB_PROJECT` says otherwise; their package must be installed."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints kept; the best one is kept besides."""
    precision: Precision = "auto"
    """`bf16` runs the matrix products in bfloat16; weights and losses stay float32. `auto` takes it
    where the device multiplies it by itself, and `fp32` elsewhere."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda`, `xpu` or `mps`."""
    threads: int = 0
    """Threads of PyTorch on the CPU; 0 leaves it to PyTorch. Small networks are fastest with one:
    more threads spend their time waiting, also for the one that makes the batches."""
    parallel: Parallel = "ddp"
    """Where several processes share a run: `ddp` holds the whole model in each, `fsdp` cuts it
    among them."""
    peak_tflops: float = 0.0
    """Operations that the device does each second at most, in 1e12, by its data sheet for
    `precision` and dense matrices; `metrics.jsonl` then tells the share used, `mfu`."""
    activation_checkpointing: bool = False
    """Compute the activations of each block again in the backward pass, instead of keeping them."""
    compile: bool = False
    """Let torch.compile fuse the operations of each block; the first steps then take minutes. It is
    for GPUs with varlen attention: the padded one of a CPU is another graph for every batch, which
    torch 2.14 fails to trace."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "batch_size", "gradient_accumulation_steps", "log_every", "keep")
        require_at_least(self, 0, "steps", "save_every", "weight_decay", "max_grad_norm", "seed")
        require_at_least(self, 0, "lr", "max_rows_per_micro_batch", "threads", "peak_tflops")
        require_between(self, 0, 1, "single_share", "warmup_ratio", "beta1", "beta2")
        require_between(self, 0, 0.999999, "ema_decay")
        if self.max_rows_per_micro_batch and self.gradient_accumulation_steps > 1:
            raise ValueError(
                "gradient_accumulation_steps and max_rows_per_micro_batch both say how a step is "
                "cut; give one, got "
                f"{self.gradient_accumulation_steps} and {self.max_rows_per_micro_batch}"
            )
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise ValueError(
                "optimizer = muon needs whole matrices: parallel must be ddp, got fsdp"
            )
        if not self.phases:
            raise ValueError('schedule must name at least one phase, such as ["alternate"], got []')

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return the schedule as phases, the last of them without an end.

        Raises:
            ValueError: a phase that cannot be read, or one that ends and is the last.
        """
        written = (self.schedule,) if isinstance(self.schedule, str) else self.schedule
        return tuple(
            read_phase(phase, is_last=number == len(written))
            for number, phase in enumerate(written, start=1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneTrainConfig(TrainConfig):
    """The optimisation of one task."""

    steps: int = 0
    """Optimiser steps; 0 takes `epochs`."""
    epochs: float = 4.0
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples of one optimiser step, over all ranks and accumulated parts."""
    lr: float = 5e-5
    """Peak learning rate."""
    layer_decay: float = 1.0
    """Learning rate of each block over that of the block above it; 1 treats all alike."""
    head_lr_multiplier: float = formerly("head_lr", 1.0)
    """Learning rate of the task's head over `lr` (UNITER 10, METER 50)."""
    warmup_ratio: float = formerly("warmup", 0.1)
    """Share of the steps over which the learning rate rises from zero."""
    save_every: int = 0
    """Steps between two checkpoints, each validated; 0 is once an epoch."""
    patience: int = 0
    """Stop after this many validations in a row without a better score; 0 never stops early."""
    class_weights: ClassWeights = "equal"
    """How much an example counts: all are `equal`, or those of all classes together (`balanced`:
    an example of a class that is half as frequent counts twice)."""
    validation_mode: ValidationMode = "both"
    """Which passes the validation uses; `both` averages their probabilities."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        require_at_least(self, 0, "patience", "head_lr_multiplier")
        require_between(self, 0, 1, "layer_decay")
        if self.steps == 0 and self.epochs <= 0:
            raise ValueError(f"epochs must be above 0 where steps is 0, got {self.epochs}")
