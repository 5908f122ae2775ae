"""BERT weights into the shared encoder and out again, by a literal table of names."""

from typing import Any

from torch import Tensor
from transformers import BertModel

from semvlp.errors import ConfigError
from semvlp.model.semvlp import SemVLPModel
from semvlp.model.weights import LoadReport, WeightsError, copy_tensors

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
    """Every tensor of a BertModel with `num_layers` layers, and its name in SemVLPModel."""
    modules = dict(MODULES)
    for layer in range(num_layers):
        modules |= {bert.format(layer): own.format(layer) for bert, own in LAYER_MODULES.items()}
    names = dict(EMBEDDINGS)
    for bert, own in modules.items():
        names |= {f"{bert}.{part}": f"{own}.{part}" for part in ("weight", "bias")}
    return names


def load_bert(model: SemVLPModel, name_or_path: str) -> LoadReport:
    """Fill text embeddings, self-attention, feed-forward and pooler from a BERT checkpoint.

    Region embeddings and cross-attention stay new. The token type of regions becomes BERT's type
    of the second sentence.

    Raises:
        ConfigError: the checkpoint cannot be had, or is not a BERT.
        WeightsError: it lacks a tensor, or has other shapes or more layers than `model`.
    """
    bert, unused = _read_bert(name_or_path)
    names = bert_names(bert.config.num_hidden_layers)
    tensors = {names[name]: tensor for name, tensor in bert.state_dict().items()}
    required = bert_names(model.config.num_hidden_layers).values()
    return copy_tensors(model, tensors, name_or_path, required=required, unused=unused)


def to_bert(model: SemVLPModel) -> dict[str, Tensor]:
    """The tensors that `load_bert` fills, under BERT's names: the inverse of it."""
    own = model.state_dict()
    names = bert_names(model.config.num_hidden_layers)
    return {bert: own[name] for bert, name in names.items()}


def _read_bert(name_or_path: str) -> tuple[BertModel, list[str]]:
    """The encoder of a BERT checkpoint with any heads, and the names of those heads' tensors."""
    try:
        # The declared type leaves out that `output_loading_info` makes it a pair.
        loaded: Any = BertModel.from_pretrained(name_or_path, output_loading_info=True)
    except OSError as error:
        raise ConfigError(
            f"model.bert must be a local directory with a BERT checkpoint or a name that the "
            f"Hugging Face hub gives out; {name_or_path!r} could not be read: {error}"
        ) from error
    bert, info = loaded
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise WeightsError(f"{name_or_path}: not a whole BERT encoder, it lacks {missing}")
    return bert, sorted(info["unexpected_keys"])
