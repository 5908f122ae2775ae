"""Sizes and vocabularies of a SemVLP network, in the field names of Hugging Face configurations."""

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig

from semvlp.errors import InputError, shown
from semvlp.names import (
    BoxEncoding,
    BoxSize,
    CrossAttention,
    CrossStart,
    ImageToken,
    PairHead,
    RegionEmbedding,
)

TaskHead = Literal["pooled", "pair", "match", "region"]

# The paper names no sizes; `base` and `large` are BERT's, the cross-attention in the upper half is
# our choice, and `tiny` and `small` are for machines without a GPU. Of three blocks all have one:
# with one alone, text reads the image once, and nobody reads what the regions took from the text.
# BERT's initializer_range, 0.02, belongs to its width: narrower networks start with weights larger
# by the root of the ratio, or attention stays uniform for long.
PRESETS: dict[str, dict[str, int | float]] = {
    "tiny": {
        "num_hidden_layers": 3,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "cross_layers": 3,
        "initializer_range": 0.05,
    },
    "small": {
        "num_hidden_layers": 6,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "cross_layers": 3,
        "initializer_range": 0.035,
    },
    "base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "cross_layers": 6,
    },
    "large": {
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "cross_layers": 12,
    },
}

MOST = {"layers": 1000, "heads": 1000, "size": 10**6, "labels": 10**6, "embeddings": 10**6}
"""Of each kind of number in a config.json: far above every network, far below what fills memory."""
_KIND = re.compile(rf".*({'|'.join(MOST)}|dim)")


PROCESSOR = "processor_config.json"
"""What `SemVLPProcessor` is made of, beside the weights."""


class ConfigFileError(InputError, ValueError):
    """A config.json that describes no network."""


@strict
class SemVLPConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Everything that decides the shapes of the tensors; the default is the preset `base`.

    Raises:
        ValueError: sizes that do not fit together.
    """

    model_type = "semvlp"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    region_norm_eps: float = 1e-5
    """Of the normalisations of projected features and boxes. Larger than BERT's, which LXMERT has
    there too: a zeroed feature row has hardly any variance, and a normalisation multiplies its
    gradient by up to 1 / sqrt(eps)."""
    tie_word_embeddings: bool = True
    cross_layers: int = 6
    """How many of the upper blocks have a cross-attention plugged in for the two-stream mode."""
    cross_attention: CrossAttention = "shared"
    """Whose weights the cross-attention has: the same for text -> regions and regions -> text
    (`shared`, LXMERT), each direction its own (`separate`, ViLBERT), or those of its block's
    self-attention (`tied`), with a normalisation of its own."""
    cross_start: CrossStart = "fresh"
    """Where the weights of the cross-attention start: at random, or as those of the self-attention
    of their block; tied ones are these."""
    region_feature_size: int = 2048
    box_size: BoxSize = 4
    """Numbers of a box: x1 y1 x2 y2; 5 adds the area (ViLBERT), 7 width, height, area (UNITER)."""
    box_encoding: BoxEncoding = "linear"
    """What is projected of these numbers: they alone (`linear`, all published families), or with
    them their sines and cosines at rising frequencies (`fourier`), which tell places apart that
    differ by little. Checkpoints that do not say are linear."""
    region_embedding: RegionEmbedding = "mean-of-norms"
    """How feature and box projections become one: the mean of both normalised (LXMERT), their
    normalised sum (ViLBERT, VisualBERT), or the normalised sum of both normalised (UNITER)."""
    region_profile: dict[str, Any] | None = None
    """What shaped the region features that the network was trained on last, as the manifest of
    their data set tells it: detector, hash of its weights, sizes, selection. None says nothing."""
    image_token: ImageToken = "none"
    """A row for the whole image before its regions, the mean of their features (ViLBERT)."""
    num_objects: int = 1600
    """Object classes of the detector; 0 leaves the head out."""
    num_attributes: int = 400
    """Attribute classes of the detector; 0 leaves the head out."""
    answers: list[str] | None = None
    """Answers of pre-training in the order of the head's rows; none leaves the head out."""
    task: str | None = None
    """The benchmark that the network was fine-tuned on."""
    task_head: TaskHead | None = None
    """Head of `SemVLPForTask`; its labels are `id2label`."""
    pair_head: PairHead = "concatenation"
    """How the pair head joins two images: their pooled vectors side by side, or attention between
    their rows first (UNITER)."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.answers = list(self.answers or [])
        if min(self.hidden_size, self.num_attention_heads, self.num_hidden_layers) < 1:
            raise ValueError("there must be a hidden size, a head and a layer")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} "
                f"and {self.num_attention_heads}"
            )
        if not 0 <= self.cross_layers <= self.num_hidden_layers:
            raise ValueError(
                f"cross_layers must be between 0 and num_hidden_layers = {self.num_hidden_layers}, "
                f"got {self.cross_layers}"
            )
        repeated = [answer for answer, count in Counter(self.answers).items() if count > 1]
        if repeated:
            raise ValueError(f"answers must differ, got {repeated[0]!r} more than once")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read config.json, of whichever model, as transformers does, within bounds.

        Raises:
            OSError: there is none.
            ConfigFileError: it is damaged, or its numbers are no sizes of a network.
        """
        name = pretrained_model_name_or_path
        try:
            read = super().get_config_dict(name, **options)
            config, unused = read
            check_sizes(config)
        except (RecursionError, ValueError, TypeError, AttributeError) as error:
            raise ConfigFileError(f"{name}: its config.json describes no model: {error}") from error
        return config, unused

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Return the configuration called tiny, small, base or large, with single fields replaced.

        Raises:
            ValueError: an unknown preset, or an override that is not a field.
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        _check_names(overrides)
        try:
            return cls(**{**PRESETS[name], **overrides})
        except StrictDataclassError as error:
            raise ValueError(str(error)) from error

    def for_task(self, head: TaskHead, labels: Sequence[str], **overrides: Any) -> Self:
        """Return the same network with a task head for `labels`, in the order of its rows.

        Raises:
            ValueError: no labels, equal labels, other than two for the match head (the second
                means match) or one for the region head, or an override that is not a field.
        """
        _check_names(overrides)
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"labels must differ and be at least one, got {_shortened(labels)}")
        if head == "match" and len(labels) != 2:
            raise ValueError(
                f"the match head has two labels, no match and match, got {_shortened(labels)}"
            )
        if head == "region" and len(labels) != 1:
            raise ValueError(
                f"the region head has one label for every region, got {_shortened(labels)}"
            )
        fields: dict[str, Any] = {
            "task_head": head,
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "answers": None,
            "architectures": None,
        }
        return dataclasses.replace(self, **{**fields, **overrides})

    @property
    def num_image_tokens(self) -> int:
        """Return the number of rows that an image has besides its regions."""
        return int(self.image_token != "none")

    @property
    def has_exclusive_labels(self) -> bool:
        """Tell whether one label alone is right (softmax), or each by itself may be (sigmoid).

        `problem_type` says it; where it is not set, as before 0.2, only questions have several
        right answers.
        """
        if self.problem_type is not None:
            return self.problem_type == "single_label_classification"
        return self.task_head != "pooled" or self.task not in (None, "vqa")

    @property
    def answers_questions(self) -> bool:
        """Tell whether the head answers questions; before 0.2 checkpoints do not say their task."""
        return self.task_head == "pooled" and self.task in (None, "vqa", "gqa")

    @property
    def labels(self) -> list[str]:
        """Return the labels of the task head in the order of its rows.

        `id2label` itself may be out of order: `config.json` sorts its keys as text.
        """
        pairs = sorted((int(index), str(label)) for index, label in (self.id2label or {}).items())
        return [label for _, label in pairs]


def processor_values(config: SemVLPConfig) -> dict[str, Any]:
    """Return what a checkpoint's processor has of its configuration, as processor_config.json."""
    labels = config.labels if config.task_head else list(config.answers or [])
    return {
        "processor_class": "SemVLPProcessor",
        "region_profile": config.region_profile,
        # The region head chooses among regions, whatever their number.
        "labels": [] if config.task_head == "region" else labels,
        "exclusive": config.has_exclusive_labels,
        "images": 2 if config.task_head == "pair" else 1,
    }


def check_sizes(config: Mapping[str, Any]) -> None:
    """Raise where a number of a config.json would fill memory before anything can be compared.

    Raises:
        ValueError: names the number and its bound.
    """
    for name, value in config.items():
        kind = _KIND.fullmatch(name)
        if kind is None or not isinstance(value, int | float):
            continue
        most = MOST.get(kind[1], MOST["size"])
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be between 0 and {most}, got {shown(value, 20)}")


def _check_names(overrides: Iterable[str]) -> None:
    known = [field.name for field in dataclasses.fields(SemVLPConfig)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name!r} is not a field of the model configuration{hint}")


def _shortened(labels: Sequence[str]) -> str:
    return f"{len(labels)}: {', '.join(map(repr, labels[:5]))}"
