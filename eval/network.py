"""A fine-tuned network ready to answer, and how it is opened from a checkpoint that fits its task.

N pairs of a text and an image; C labels; T tokens, R regions, D width.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from semvlp.addresses import refuse_missing_checkpoint
from semvlp.distributed import device_of
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.eval.limits import DEFAULT_LIMITS, Limits, limits_of
from semvlp.eval.task import Example, Loss, Pass, Scores, Task
from semvlp.model.config import SemVLPConfig, TaskHead
from semvlp.model.layers.two_stream_cache import LowerStates
from semvlp.model.outputs import TaskOutput
from semvlp.model.packing import PairRegions, pack
from semvlp.model.task_network import TaskNetwork
from semvlp.model.tokenizer import encode, load_tokenizer
from semvlp.names import Precision
from semvlp.shards.dataset.hashes import plain
from semvlp.shards.dataset.plan import differences
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)

WEIGHTS_NAME = "model.safetensors"
PROBLEM: dict[Loss, str] = {
    "cross_entropy": "single_label_classification",
    "binary_cross_entropy": "multi_label_classification",
}
"""What a checkpoint says of how its labels were learned, in transformers' words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model with its tokenizer and how it is run."""

    model: TaskNetwork
    tokenizer: PreTrainedTokenizerFast
    device: str
    batch_size: int
    """Examples of one forward pass; changes speed and memory, never a result."""
    limits: Limits = DEFAULT_LIMITS
    zero_shot: bool = False
    """Whether the head is the answer or matching head of pre-training as it stands."""

    @property
    def labels(self) -> list[str]:
        """The C labels in the order of the logits."""
        labels: list[str] = self.model.config.labels
        return labels

    def is_exclusive(self, task: Task) -> bool:
        """Tell whether the labels exclude each other: a checkpoint knows best how it learned them.

        Pre-training learns its answers with a cross-entropy, whatever the task learns with.
        """
        known = self.model.config.problem_type or PROBLEM[task.loss]
        return self.zero_shot or known == PROBLEM["cross_entropy"]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids `[CLS] ... [SEP]` of each text."""
        return encode(self.tokenizer, texts, self.limits.max_text_length)

    def logits(
        self, texts: Sequence[Sequence[int]], regions: Sequence[PairRegions], mode: Pass
    ) -> Tensor:
        """Return logits float32 of N pairs, on the CPU: [N, C], [N / 2, C] for the pair head."""
        batch = pack(texts, regions).to(self.device)
        output: TaskOutput = self.model(batch, mode)
        return output.logits.float().cpu()

    @property
    def like(self) -> Tensor:
        """A tensor on the device and in the dtype of the encoder."""
        return next(self.model.semvlp.encoder.parameters()).detach()

    def lower_texts(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return rows [T, D] of texts in two-stream mode as far as they have seen no image."""
        size = self.model.config.region_feature_size
        nothing = np.zeros((0, size), np.float32), np.zeros((0, 4), np.float32), 1, 1
        batch = pack(texts, [nothing] * len(texts)).to(self.device)
        rows: Tensor = self.model.semvlp.lower(batch)[0].rows
        return rows

    def lower_regions(self, regions: Sequence[PairRegions]) -> Tensor:
        """Return rows [R, D] of images in two-stream mode as far as they have seen no text."""
        # Whatever stands for a text, the regions do not see it.
        batch = pack([[0]] * len(regions), regions).to(self.device)
        rows: Tensor = self.model.semvlp.lower(batch)[1].rows
        return rows

    def upper_logits(
        self, text: LowerStates, regions: LowerStates, texts: Tensor, images: Tensor
    ) -> Tensor:
        """Return logits [N, C] float32 on the CPU of N pairs, as in `SemVLPModel.upper`."""
        logits: Tensor = self.model.head(self.model.semvlp.upper(text, regions, texts, images))
        return logits.float().cpu()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Switch off dropout and gradients inside; leave the model in the state it was in."""
        model: nn.Module = self.model
        training = model.training
        # To move weights that ranks have gathered is to cut them again, even where they stay.
        if str(self.like.device) != self.device:
            model.to(self.device)
        # Modules are switched one by one: for one text that takes as long as a block.
        if training:
            model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                model.train()


def finite(scores: Scores, mode: Pass) -> Scores:
    """Return the scores as they are.

    Raises:
        SemVLPError: one of them is NaN or infinite.
    """
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise SemVLPError(
            f"the network's scores must be finite, but {bad} of {scores.size} of the {mode} pass "
            "are not; its weights are damaged or its precision is too low"
        )
    return scores


def open_network(
    checkpoint: Path,
    *,
    device: str,
    batch_size: int,
    precision: Precision = "fp32",
    zero_shot: Task | None = None,
) -> Network:
    """Open the network of a checkpoint directory in the Hugging Face layout.

    Args:
        device: a name that `device_of` knows; under torchrun each process has its own GPU.
        precision: of the encoder; the head is always float32, or scores would tie.
        zero_shot: a task; for it a pre-training checkpoint will do where one of its own heads, the
            answer or the matching head, can answer: its rows are taken over as they are.

    Raises:
        ConfigError: no such device.
        InputError: no such checkpoint, or one that is not of a fine-tuned SemVLP model.
    """
    head, answers = _head(checkpoint)
    labels = zero_shot.zero_shot_labels(answers) if zero_shot and not head else []
    if not head and not labels:
        own = f", and no head of its own answers {zero_shot.name}" if zero_shot else ""
        raise InputError(
            f"{checkpoint}: must be fine-tuned on a task, but has no task head{own}; run "
            "`semvlp finetune` with it as --init first"
        )
    try:
        if zero_shot and labels:
            model, _ = TaskNetwork.from_pretraining(checkpoint, head=zero_shot.head, labels=labels)
        else:
            model = TaskNetwork.from_checkpoint(checkpoint)
        tokenizer = load_tokenizer(checkpoint)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, ConfigError) as error:
        raise InputError(f"{checkpoint}: is no fine-tuned SemVLP checkpoint: {error}") from error
    if precision == "bf16":
        encoder: nn.Module = model.semvlp
        encoder.to(torch.bfloat16)
        model.semvlp.pooler.float()
    return Network(
        model=model,
        tokenizer=tokenizer,
        device=str(device_of(device)),
        batch_size=batch_size,
        limits=limits_of(checkpoint),
        zero_shot=head is None,
    )


def check_regions(
    config: SemVLPConfig, checkpoint: Path | str, store: Store, *, allow_other: bool = False
) -> None:
    """Check that the regions of a store are such as a checkpoint was trained on.

    Weights say nothing about regions of another detector, of other weights or sizes of it, or of
    another selection. A checkpoint that does not say what it was trained on is believed, with a
    warning.

    Args:
        config: of the checkpoint.
        allow_other: whether only the size of the features has to be equal.

    Raises:
        InputError: they are others; says in what they differ.
    """
    manifest = store.manifest
    if config.region_feature_size != manifest.feature_size:
        raise InputError(
            f"{checkpoint} was trained on region features of size {config.region_feature_size}, "
            f"but those of {store.path} have {manifest.feature_size}; give the shards of the "
            "detector it was trained with"
        )
    if config.region_profile is None:
        log.warning(
            "%s does not say which regions it was trained on; those of %s must come from the same "
            "detector, sizes and selection",
            *(checkpoint, store.path),
        )
        return
    different = "; ".join(differences(config.region_profile, plain(manifest.extractor)))
    if different and allow_other:
        log.warning("%s has other regions than %s: %s", store.path, checkpoint, different)
    elif different:
        raise InputError(
            f"{store.path} must hold regions such as {checkpoint} was trained on, but {different}; "
            "extract the images as it was, or say --allow-other-regions"
        )


def check_network(
    network: Network, task: Task, examples: Sequence[Example], checkpoint: Path
) -> None:
    """Check that the network of `checkpoint` has the task's head and labels.

    Raises:
        InputError: it has others; says which and what to give.
    """
    config, labels = network.model.config, set(network.labels)
    if config.task_head != task.head:
        raise InputError(
            f"task {task.name} needs the {task.head} head, but {checkpoint} has the "
            f"{config.task_head} head; give a checkpoint fine-tuned on {task.name}"
        )
    known = {label for example in examples for label in example.target}
    if known and not known & labels:
        raise InputError(
            f"{checkpoint} answers {_few(labels)}, but the right answers of task {task.name} are "
            f"{_few(known)}; give a checkpoint fine-tuned on {task.name}"
        )


def _head(checkpoint: Path) -> tuple[TaskHead | None, list[str]]:
    """Return what config.json says: the task head, None in pre-training, and its answers."""
    refuse_missing_checkpoint(checkpoint, "the checkpoint")
    for name in ("config.json", WEIGHTS_NAME):
        if not (checkpoint / name).is_file():
            raise InputError(
                f"{checkpoint}: must be a checkpoint with config.json, {WEIGHTS_NAME} and a "
                f"tokenizer, but {name} is missing; give e.g. runs/finetune-nlvr2/best"
            )
    try:
        config = from_json((checkpoint / "config.json").read_bytes())
        kind, head = config.get("model_type"), config.get("task_head")
        answers = list(config.get("answers") or ())
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint / 'config.json'}: must be a JSON object: {error}") from error
    if kind != "semvlp":
        raise InputError(
            f"{checkpoint}: must hold a semvlp model, but its config.json says {kind!r}"
        )
    return head, answers


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
