"""VisualBERT weights into the shared encoder, by a literal table of names.

VisualBERT (uclanlp/visualbert, transformers' VisualBertModel) is a single-stream BERT: with
`region_embedding` = sum and boxes that weigh nothing, the single-stream mode computes the same.
"""

import torch
from torch import Tensor
from transformers import VisualBertModel

from semvlp.model.hub import read_encoder
from semvlp.model.layers.block import attention_twins
from semvlp.model.layers.embeddings import REGION_TYPE, TEXT_TYPE
from semvlp.model.network import SemVLPNetwork
from semvlp.model.published.bert import bert_names
from semvlp.model.weights import LoadReport, check_options, copy_tensors

# VisualBERT's name -> ours, beside what it has in common with BERT.
REGIONS = {
    "embeddings.visual_projection.weight": "region_embeddings.features.weight",
    "embeddings.LayerNorm.weight": "region_embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "region_embeddings.norm.bias",
}
# These three have no place of their own and are added to others.
PROJECTION_BIAS = "embeddings.visual_projection.bias"
REGION_POSITIONS = "embeddings.visual_position_embeddings.weight"
REGION_TYPES = "embeddings.visual_token_type_embeddings.weight"
TYPES = "text_embeddings.token_type_embeddings.weight"


def load_visual_bert(model: SemVLPNetwork, name_or_path: str) -> LoadReport:
    """Fill all but cross-attention and mask embedding from a VisualBERT checkpoint.

    The boxes start with no weight, and features are taken as they are: leave them unstandardised.
    Region positions but the first are left out, for regions have none.

    Raises:
        ConfigError: the checkpoint cannot be had, or is not a VisualBERT.
        WeightsError: it lacks a tensor, or `model` has other options or shapes.
    """
    check_options(model.config, name_or_path, "VisualBERT's", {"region_embedding": "sum"})
    other, unused = read_encoder(VisualBertModel, name_or_path)
    state = other.state_dict()
    names = bert_names(other.config.num_hidden_layers)
    tensors = {own: state[name] for name, own in (*names.items(), *REGIONS.items())}
    tensors |= _regions(model, state)
    if model.config.cross_start == "self-attention":
        started = attention_twins(name for name, _ in model.named_parameters())
        tensors |= {twin: tensors[name] for name, twin in started if name in tensors}
    required = [*bert_names(model.config.num_hidden_layers).values(), *REGIONS.values()]
    model.region_embeddings.standardisable = False
    return copy_tensors(model, tensors, name_or_path, required=required, unused=unused)


def _regions(model: SemVLPNetwork, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the tensors that are not copied: every region has position 0 and the visual type 1."""
    embeddings = model.region_embeddings
    types = torch.zeros_like(model.text_embeddings.token_type_embeddings.weight)
    types[TEXT_TYPE] = state["embeddings.token_type_embeddings.weight"][0]
    types[REGION_TYPE] = state[REGION_TYPES][1]
    return {
        TYPES: types,
        "region_embeddings.features.bias": state[PROJECTION_BIAS] + state[REGION_POSITIONS][0],
        "region_embeddings.boxes.weight": torch.zeros_like(embeddings.boxes.weight),
        "region_embeddings.boxes.bias": torch.zeros_like(embeddings.boxes.bias),
        "region_embeddings.feature_mean": torch.zeros_like(embeddings.feature_mean),
        "region_embeddings.feature_deviation": torch.ones_like(embeddings.feature_deviation),
    }
