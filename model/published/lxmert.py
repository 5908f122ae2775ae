"""LXMERT weights into the shared encoder where the parts correspond, by a literal table of names.

LXMERT (airsplay/lxmert, transformers' LxmertModel) has layers of its own for each modality; here
both share them. The language layers become the lower blocks, the language side of the
cross-modality layers the upper ones, and their cross-attention is the one plugged in. The vision
side of both has no place. Embeddings, layers and cross-attention compute what they computed there;
the whole does not, for LXMERT crosses before its self-attention and has no shared regions' layers.
"""

import torch
from torch import Tensor
from transformers import LxmertModel

from semvlp.model.hub import read_encoder
from semvlp.model.layers.embeddings import TEXT_TYPE
from semvlp.model.network import SemVLPNetwork
from semvlp.model.published.bert import EMBEDDINGS, LAYER_MODULES, MODULES, named_parts
from semvlp.model.weights import LoadReport, check_options, copy_tensors

# LXMERT's name -> ours; `.weight` and `.bias` follow. Its language layers are named as BERT's.
REGION_MODULES = {
    "encoder.visn_fc.visn_fc": "region_embeddings.features",
    "encoder.visn_fc.visn_layer_norm": "region_embeddings.feature_norm",
    "encoder.visn_fc.box_fc": "region_embeddings.boxes",
    "encoder.visn_fc.box_layer_norm": "region_embeddings.box_norm",
}
CROSS_MODULES = {
    "encoder.x_layers.{}.visual_attention.att.query": "encoder.blocks.{}.cross_attention.query",
    "encoder.x_layers.{}.visual_attention.att.key": "encoder.blocks.{}.cross_attention.key",
    "encoder.x_layers.{}.visual_attention.att.value": "encoder.blocks.{}.cross_attention.value",
    "encoder.x_layers.{}.visual_attention.output.dense": "encoder.blocks.{}.cross_attention.output",
    "encoder.x_layers.{}.visual_attention.output.LayerNorm": (
        "encoder.blocks.{}.cross_attention_norm"
    ),
    "encoder.x_layers.{}.lang_self_att.self.query": "encoder.blocks.{}.self_attention.query",
    "encoder.x_layers.{}.lang_self_att.self.key": "encoder.blocks.{}.self_attention.key",
    "encoder.x_layers.{}.lang_self_att.self.value": "encoder.blocks.{}.self_attention.value",
    "encoder.x_layers.{}.lang_self_att.output.dense": "encoder.blocks.{}.self_attention.output",
    "encoder.x_layers.{}.lang_self_att.output.LayerNorm": "encoder.blocks.{}.self_attention_norm",
    "encoder.x_layers.{}.lang_inter.dense": "encoder.blocks.{}.feed_forward.inner",
    "encoder.x_layers.{}.lang_output.dense": "encoder.blocks.{}.feed_forward.outer",
    "encoder.x_layers.{}.lang_output.LayerNorm": "encoder.blocks.{}.feed_forward_norm",
}


OPTIONS = {
    "cross_attention": "shared",
    "region_embedding": "mean-of-norms",
    "box_size": 4,
    "box_encoding": "linear",
}


def lxmert_names(language_layers: int, cross_layers: int) -> dict[str, str]:
    """Return every tensor of an LxmertModel that has a place in SemVLPModel, and its name there."""
    modules = {**MODULES, **REGION_MODULES}
    for layer in range(language_layers):
        modules |= {name.format(layer): own.format(layer) for name, own in LAYER_MODULES.items()}
    for layer in range(cross_layers):
        block = language_layers + layer
        modules |= {name.format(layer): own.format(block) for name, own in CROSS_MODULES.items()}
    return EMBEDDINGS | named_parts(modules)


def load_lxmert(model: SemVLPNetwork, name_or_path: str) -> LoadReport:
    """Fill all but the mask embedding from an LXMERT checkpoint; features are taken as they are.

    Raises:
        ConfigError: the checkpoint cannot be had, or is not an LXMERT.
        WeightsError: it lacks a tensor, or `model` has other options or shapes.
    """
    other, heads = read_encoder(LxmertModel, name_or_path)
    language, cross = other.config.l_layers, other.config.x_layers
    wanted = {"num_hidden_layers": language + cross, "cross_layers": cross} | OPTIONS
    check_options(model.config, name_or_path, "LXMERT's", wanted)
    state = other.state_dict()
    names = lxmert_names(language, cross)
    tensors = {own: state[name] for name, own in names.items()} | _regions(model, state)
    unused = [*heads, *(name for name in state if name not in names)]
    model.region_embeddings.standardisable = False
    _normalise_as(model, other.encoder.visn_fc.visn_layer_norm.eps)
    return copy_tensors(model, tensors, name_or_path, required=names.values(), unused=unused)


def _normalise_as(model: SemVLPNetwork, eps: float) -> None:
    """Give the norms of regions LXMERT's eps: with ours features of small variance differ."""
    model.config.region_norm_eps = eps
    for norm in (model.region_embeddings.feature_norm, model.region_embeddings.box_norm):
        norm.eps = eps


def _regions(model: SemVLPNetwork, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the tensors that are not copied as they are: LXMERT's regions have no token type."""
    embeddings = model.region_embeddings
    types = torch.zeros_like(model.text_embeddings.token_type_embeddings.weight)
    types[TEXT_TYPE] = state["embeddings.token_type_embeddings.weight"][0]
    return {
        "text_embeddings.token_type_embeddings.weight": types,
        "region_embeddings.feature_mean": torch.zeros_like(embeddings.feature_mean),
        "region_embeddings.feature_deviation": torch.ones_like(embeddings.feature_deviation),
    }
