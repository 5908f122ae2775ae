"""A fine-tuned network ready to answer, and how it is opened from a checkpoint.

N pairs of a text and an image; C labels.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from semvlp.errors import ConfigError, InputError
from semvlp.model.packing import PairRegions, pack
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import encode, load_tokenizer

Pass = Literal["single", "two"]

WEIGHTS_NAME = "model.safetensors"
# Where training leaves its resolved settings inside a checkpoint.
TRAINING_CONFIG = Path("training") / "config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a text and of an image is read; must be as in training."""

    max_text_length: int = 60
    """Longest text in word pieces, [CLS] and [SEP] included."""
    max_regions: int = 100
    """Only the most confident regions of an image are used, this many."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model with its tokenizer and how it is run."""

    model: SemVLPForTask
    tokenizer: PreTrainedTokenizerFast
    device: str
    batch_size: int
    """Examples of one forward pass; changes speed and memory, never a result."""
    limits: Limits = DEFAULT_LIMITS

    @property
    def labels(self) -> list[str]:
        """The C labels in the order of the logits."""
        labels: list[str] = self.model.config.labels
        return labels

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids `[CLS] ... [SEP]` of each text."""
        return encode(self.tokenizer, texts, self.limits.max_text_length)

    def logits(
        self, texts: Sequence[Sequence[int]], regions: Sequence[PairRegions], mode: Pass
    ) -> Tensor:
        """Logits float32 of N pairs, on the CPU: [N, C], [N / 2, C] for the pair head."""
        batch = pack(texts, regions).to(self.device)
        logits: Tensor = self.model(batch, mode)
        return logits.float().cpu()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No dropout and no gradients inside; the model is left in the state it was in."""
        model: nn.Module = self.model
        training = model.training
        model.to(self.device).eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            model.train(training)


def open_network(checkpoint: Path, *, device: str, batch_size: int) -> Network:
    """The network of a checkpoint directory in the Hugging Face layout, in float32.

    `device` is PyTorch's name of one, or `auto` for a GPU where there is one.

    Raises:
        InputError: no such checkpoint, or one that is not of a fine-tuned SemVLP model.
    """
    _check_files(checkpoint)
    try:
        loaded: Any = SemVLPForTask.from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = load_tokenizer(checkpoint)
    except (OSError, ValueError, RuntimeError, SafetensorError, ConfigError) as error:
        raise InputError(f"{checkpoint}: is no fine-tuned SemVLP checkpoint: {error}") from error
    model, info = loaded
    # transformers would go on with random weights in their place.
    wrong = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if wrong:
        raise InputError(
            f"{checkpoint / WEIGHTS_NAME}: must hold exactly the tensors of its config.json, but "
            f"{len(wrong)} are missing or too many, first {wrong[0]}"
        )
    return Network(
        model=model,
        tokenizer=tokenizer,
        device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device,
        batch_size=batch_size,
        limits=_limits(checkpoint / TRAINING_CONFIG),
    )


def _check_files(checkpoint: Path) -> None:
    for name in ("config.json", WEIGHTS_NAME):
        if not (checkpoint / name).is_file():
            raise InputError(
                f"{checkpoint}: must be a checkpoint with config.json, {WEIGHTS_NAME} and a "
                f"tokenizer, but {name} is missing; give e.g. runs/finetune-nlvr2/best"
            )
    try:
        config = json.loads((checkpoint / "config.json").read_bytes())
        kind, head = config.get("model_type"), config.get("task_head")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{checkpoint / 'config.json'}: must be a JSON object: {error}") from error
    if kind != "semvlp":
        raise InputError(
            f"{checkpoint}: must hold a semvlp model, but its config.json says {kind!r}"
        )
    if head is None:
        raise InputError(
            f"{checkpoint}: must be fine-tuned on a task, but has no task head; run "
            "`semvlp finetune` with it as --init first"
        )


def _limits(path: Path) -> Limits:
    """As the checkpoint was trained, or the defaults where it came without its settings."""
    if not path.is_file():
        return DEFAULT_LIMITS
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("data", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be the settings of the training run: {error}") from error
    known = {name: data[name] for name in ("max_text_length", "max_regions") if name in data}
    return Limits(**known)
