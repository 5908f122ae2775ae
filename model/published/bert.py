"""BERT weights into the shared encoder and out again, by a literal table of names."""

from collections.abc import Mapping

from torch import Tensor
from transformers import BertModel

from semvlp.model.hub import read_encoder
from semvlp.model.layers.block import attention_twins
from semvlp.model.network import SemVLPNetwork
from semvlp.model.weights import LoadReport, copy_tensors

# BERT's name -> ours; `.weight` and `.bias` follow where a module is meant.
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "text_embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight": "text_embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight": "text_embeddings.token_type_embeddings.weight",
}
MODULES = {
    "embeddings.LayerNorm": "text_embeddings.norm",
    "pooler.dense": "pooler",
}
LAYER_MODULES = {
    "encoder.layer.{}.attention.self.query": "encoder.blocks.{}.self_attention.query",
    "encoder.layer.{}.attention.self.key": "encoder.blocks.{}.self_attention.key",
    "encoder.layer.{}.attention.self.value": "encoder.blocks.{}.self_attention.value",
    "encoder.layer.{}.attention.output.dense": "encoder.blocks.{}.self_attention.output",
    "encoder.layer.{}.attention.output.LayerNorm": "encoder.blocks.{}.self_attention_norm",
    "encoder.layer.{}.intermediate.dense": "encoder.blocks.{}.feed_forward.inner",
    "encoder.layer.{}.output.dense": "encoder.blocks.{}.feed_forward.outer",
    "encoder.layer.{}.output.LayerNorm": "encoder.blocks.{}.feed_forward_norm",
}


def bert_names(num_layers: int) -> dict[str, str]:
    """Return every tensor of a BertModel with `num_layers` layers, and its name in SemVLPModel."""
    modules = dict(MODULES)
    for layer in range(num_layers):
        modules |= {bert.format(layer): own.format(layer) for bert, own in LAYER_MODULES.items()}
    return EMBEDDINGS | named_parts(modules)


def named_parts(modules: Mapping[str, str]) -> dict[str, str]:
    """Return weight and bias of each module, by both names."""
    return {
        f"{other}.{part}": f"{own}.{part}"
        for other, own in modules.items()
        for part in ("weight", "bias")
    }


def load_bert(model: SemVLPNetwork, name_or_path: str) -> LoadReport:
    """Fill text embeddings, self-attention, feed-forward and pooler from a BERT checkpoint.

    Region embeddings stay new, and so does the cross-attention unless `cross_start` says that it
    begins as the self-attention. The token type of regions becomes BERT's type of the second
    sentence.

    Raises:
        ConfigError: the checkpoint cannot be had, or is not a BERT.
        WeightsError: it lacks a tensor, or has other shapes or more layers than `model`.
    """
    bert, unused = read_encoder(BertModel, name_or_path)
    names = bert_names(bert.config.num_hidden_layers)
    tensors = {names[name]: tensor for name, tensor in bert.state_dict().items()}
    if model.config.cross_start == "self-attention":
        started = attention_twins(name for name, _ in model.named_parameters())
        tensors |= {twin: tensors[name] for name, twin in started if name in tensors}
    required = bert_names(model.config.num_hidden_layers).values()
    return copy_tensors(model, tensors, name_or_path, required=required, unused=unused)


def to_bert(model: SemVLPNetwork) -> dict[str, Tensor]:
    """Return the tensors that `load_bert` fills, under BERT's names: the inverse of it."""
    own = model.state_dict()
    names = bert_names(model.config.num_hidden_layers)
    return {bert: own[name] for bert, name in names.items()}
