"""The settings of detector training, and its report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.zoo import is_config
from semvlp.extract.networks import NETWORKS, PLAIN
from semvlp.names import Device
from semvlp.progress import duration
from semvlp.settings import formerly, require_at_least
from semvlp.train.train_config import TrackerName

# Networks whose boxes include their last pixel only detect: the rules they learned by are not here.
TRAINABLE = tuple(
    name
    for name, network in NETWORKS.items()
    if (network.variant or PLAIN).box_convention == "exclusive"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTrainConfig:
    """The training of a detector."""

    network: str = "small"
    """The network: `small` for drawings and other small domains, another name in `TRAINABLE`, a
    detector of `semvlp detector list`, or with detectron2 a YAML file or name in its model zoo."""
    settings: tuple[str, ...] = ()
    """`name=value` over the network's own settings; keys of a detectron2 config are its own."""
    steps: int = 4500
    """Optimiser steps."""
    batch_size: int = 2
    """Images of one step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW, reached after the warm-up and falling to zero (cosine)."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 1e-4
    """AdamW's decay, on every tensor."""
    max_grad_norm: float = formerly("clip", 5.0)
    """Largest norm of the gradient."""
    flip: bool = False
    """Mirror half of the images; off because left and right have names in the texts."""
    seed: int = 0
    """Everything random follows from it: weights, the order of images, what is sampled of each."""
    log_every: int = 20
    """Steps between two entries of metrics.jsonl."""
    tracker: TrackerName = "none"
    """Show the run in Trackio or Weights & Biases too; their package must be installed."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints kept."""
    init: str | None = None
    """Weights to start from (path, URL or `hf:` address): those of the backbone and of the region
    proposals are taken. The ResNets need it, because their batch norm does not learn; a detector
    of the list and a detectron2 config start from their own unless it is given."""
    valid: Path | None = None
    """Annotations to score the finished detector on."""
    valid_images: Path | None = None
    """The directory of their images; that of the training images unless given."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda`, `xpu` or `mps`."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "steps", "batch_size", "log_every", "save_every", "keep")
        if self.lr <= 0 or self.max_grad_norm <= 0 or min(self.warmup_steps, self.weight_decay) < 0:
            raise ValueError(
                "lr and max_grad_norm must be positive; warmup_steps, weight_decay not negative"
            )
        if self.architecture not in (None, *TRAINABLE):
            raise ValueError(
                f"network must be one of {', '.join(TRAINABLE)}, a detector with such a network "
                f"or a detectron2 .yaml config, got {self.network!r}"
            )
        if self.architecture not in (None, "small") and self.start is None:
            raise ValueError(f"{self.network} learns nothing from random weights; set `init`")

    @property
    def architecture(self) -> str | None:
        """Return the name in `NETWORKS`; None where a detectron2 config describes the network."""
        if is_config(self.network):
            return None
        return KNOWN[self.network].network if self.network in KNOWN else self.network

    @property
    def start(self) -> str | None:
        """Return where the weights to start from are, but for those a detectron2 config names."""
        spec = KNOWN.get(self.network)
        own = spec.weights if spec and spec.weights.startswith("http") else None
        return self.init or own


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTrainReport:
    """The result of a training."""

    out: Path
    steps: int
    images: int
    """In the training annotations."""
    seconds: float
    """Time of this call."""
    scores: dict[str, float]
    """AP, AP50, AP75 and attribute_accuracy in percent, where validation annotations were given."""

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self) | {"out": str(self.out)}

    def sentence(self) -> str:
        """Return the report as one sentence."""
        scores = ", ".join(f"{name} {value:.1f}" for name, value in self.scores.items())
        return (
            f"{self.out} holds a detector after {self.steps} steps on {self.images} images "
            f"({duration(self.seconds)}){f': {scores}' if scores else ''}; use it with "
            f"`semvlp extract IMAGES --detector {self.out}`."
        )
