"""The model card beside a checkpoint: what its configuration knows, and how it is used."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from semvlp.model.config import SemVLPConfig

CARD = "README.md"
QUESTIONS = "visual-question-answering"
# The hub has no name for statements about photographs, and so none is given for them.
PIPELINES = {
    "match": "zero-shot-image-classification",
    "pooled": None,
    "pair": None,
    "region": "zero-shot-object-detection",
    None: "feature-extraction",
}
_CARD = """\
---
{metadata}
---

# {architecture}

A region-feature vision-language network after *SemVLP: Vision-Language Pre-training by Aligning
Semantics at Multiple Levels* ([arXiv 2103.07829](https://arxiv.org/abs/2103.07829)): one shared
Transformer that reads texts and image regions as a single stream or as two.

| | |
| --- | --- |
{rows}

## Use

```python
{snippet}
```

The processor finds the regions with the detector that the network was trained with, which is named
above; regions of another one mean nothing to the network. `pip install semvlp` brings both;
`import semvlp` tells transformers of them.

This card was generated from the configuration. It does not know the training data or the licence:
state them here before you share the weights.
"""
_SNIPPET = """\
import semvlp
from transformers import {auto}AutoProcessor
{own}
processor = AutoProcessor.from_pretrained("PATH_OR_NAME")
model = {kind}.from_pretrained("PATH_OR_NAME")
inputs = processor(images={images}, text="{text}")
{rest}"""
_LABELS = """\
outputs = model(**inputs)
print(processor.post_process(outputs, top=5))"""
_ENCODED = """\
encoded = model(**inputs, mode="single")
print(encoded.text.shape, encoded.regions.shape, encoded.pooled.shape)"""


def write_card(
    folder: Path,
    config: SemVLPConfig,
    architecture: str,
    num_parameters: int,
    scores: Mapping[str, float] | None = None,
) -> None:
    """Write the card of a checkpoint; one that is there is kept.

    Args:
        scores: of the checkpoint in validation, by name.
    """
    if not (folder / CARD).exists():
        card = model_card(config, architecture, num_parameters, scores or {})
        (folder / CARD).write_text(card, encoding="utf-8")


def model_card(
    config: SemVLPConfig, architecture: str, num_parameters: int, scores: Mapping[str, float]
) -> str:
    """Write Markdown with the facts of the configuration, and nothing that it does not know."""
    facts = _facts(config, num_parameters) | {
        f"validation: {name}": f"{value:.2f}" for name, value in scores.items()
    }
    return _CARD.format(
        metadata=_metadata(config, architecture, scores),
        architecture=architecture,
        rows="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        snippet=_snippet(config),
    )


def _metadata(config: SemVLPConfig, architecture: str, scores: Mapping[str, float]) -> str:
    pipeline = QUESTIONS if config.answers_questions else PIPELINES[config.task_head]
    task = config.task or config.task_head or "pre-training"
    results = [
        EvalResult(
            task_type=pipeline or task,
            dataset_type=task,
            dataset_name=f"validation split of {task}",
            metric_type=name,
            metric_value=round(value, 2),
        )
        for name, value in scores.items()
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=["semvlp", "vision-language", "region-features"],
        model_name=architecture,
        eval_results=results or None,
    )
    return data.to_yaml().rstrip()


def _facts(config: SemVLPConfig, num_parameters: int) -> dict[str, str]:
    facts = {
        "parameters": f"{num_parameters:,}",
        "layers, hidden size, heads": f"{config.num_hidden_layers}, {config.hidden_size}, "
        f"{config.num_attention_heads}",
        "cross-attention": f"upper {config.cross_layers} layers, {config.cross_attention} weights",
        "vocabulary": f"{config.vocab_size:,} word pieces",
        "region features": f"{config.region_feature_size} numbers and a box of {config.box_size} "
        f"({config.box_encoding}), "
        f"joined by {config.region_embedding}",
        "image token": config.image_token,
        "object and attribute classes": f"{config.num_objects:,} and {config.num_attributes:,}",
    }
    if config.task_head:
        facts["task"] = config.task or "not told"
        facts["head"] = f"{config.task_head}, {len(config.labels):,} labels"
    else:
        facts["answers"] = f"{len(config.answers or []):,}"
    profile = config.region_profile or {}
    words = {name: value for name, value in profile.items() if isinstance(value, str)}
    detector = [v if name != "weights_sha256" else f"weights {v[:12]}" for name, v in words.items()]
    facts["detector"] = ", ".join(detector) or "not told"
    return facts | {f"regions: {name}": value for name, value in _flat(profile)}


def _snippet(config: SemVLPConfig) -> str:
    """Write the lines from a photograph to labels, or, of the encoder alone, to vectors."""
    if config.answers_questions:
        kind, text = "AutoModelForVisualQuestionAnswering", "what is on the table?"
    elif config.task_head:
        kind, text = "SemVLPForTask", "a dog lies on the table"
    else:
        kind, text = "AutoModel", "a dog lies on the table"
    is_auto = kind.startswith("Auto")
    return _SNIPPET.format(
        auto=f"{kind}, " if is_auto else "",
        own="" if is_auto else f"\nfrom semvlp.model import {kind}\n",
        kind=kind,
        images='[("left.jpg", "right.jpg")]' if config.task_head == "pair" else '"photo.jpg"',
        text=text,
        rest=_LABELS if config.task_head else _ENCODED,
    )


def _flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested tables by dotted names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", str(value)
