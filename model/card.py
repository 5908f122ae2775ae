"""The model card that is saved beside the weights."""

from semvlp.model.config import SemVLPConfig

_CARD = """\
---
library_name: transformers
tags:
- semvlp
- vision-language
- region-features
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
from semvlp.model import {architecture}

model = {architecture}.from_pretrained("PATH_OR_NAME")
```

The input is a `PackedBatch` (`semvlp.model.pack`): token ids of the tokenizer beside the weights,
and regions of the detector that the network was trained with, {feature_size} numbers each. Regions
of another detector mean nothing to it.

This card was generated from the configuration. It does not know the training data, the scores or
the licence: state them here before you share the weights.
"""


def model_card(config: SemVLPConfig, architecture: str, num_parameters: int) -> str:
    """Markdown with the facts of the configuration, and nothing that it does not know."""
    facts = {
        "parameters": f"{num_parameters:,}",
        "layers, hidden size, heads": f"{config.num_hidden_layers}, {config.hidden_size}, "
        f"{config.num_attention_heads}",
        "cross-attention": f"upper {config.cross_layers} layers, {config.cross_attention} weights",
        "vocabulary": f"{config.vocab_size:,} word pieces",
        "region features": f"{config.region_feature_size} numbers and a box of {config.box_size}, "
        f"joined by {config.region_embedding}",
        "image token": config.image_token,
        "object and attribute classes": f"{config.num_objects:,} and {config.num_attributes:,}",
    }
    if config.task_head:
        facts["head"] = f"{config.task_head}, {len(config.labels):,} labels"
    else:
        facts["answers"] = f"{len(config.answers or []):,}"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return _CARD.format(
        architecture=architecture, rows=rows, feature_size=config.region_feature_size
    )
