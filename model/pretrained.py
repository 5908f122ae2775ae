"""SemVLPPreTrainedModel: the models in the conventions of Hugging Face."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, initialization

from semvlp.model.card import write_card
from semvlp.model.config import SemVLPConfig
from semvlp.model.hub import push
from semvlp.model.layers.attention import check_implementation
from semvlp.model.layers.block import Block, attention_twins
from semvlp.model.layers.embeddings import RegionEmbeddings
from semvlp.model.weights import refuse_larger
from semvlp.progress import without_bars

# A block is compiled for either mode, with and without a cross-attention slot, as the last one, in
# training and in evaluation, and where a pair has no regions: above PyTorch's limit of 8.
BLOCK_VARIANTS = 64
WORDS = "text_embeddings.word_embeddings"


class SemVLPPreTrainedModel(PreTrainedModel):
    """Configuration, initialisation and saving, which the SemVLP models share."""

    config: SemVLPConfig
    config_class = SemVLPConfig
    base_model_prefix = "semvlp"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (transformers declares it so)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as in transformers, without its progress bars, and from safetensors alone.

        Raises:
            ConfigFileError: the config.json of a local checkpoint describes no network.
            WeightsError: it describes a far larger one than its weights are of.
        """
        folder = Path(str(args[0] if args else kwargs.get("pretrained_model_name_or_path")))
        if folder.is_dir() and "config" not in kwargs:
            refuse_larger(cls, cls.config_class.from_pretrained(folder), folder)
        with without_bars():
            return super().from_pretrained(*args, **{**kwargs, "use_safetensors": True})

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Save as in transformers, without its progress bars, with a model card where none is."""
        with without_bars():
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            folder = Path(save_directory)
            write_card(folder, self.config, type(self).__name__, self.num_parameters())
            # safetensors keeps its files to their owner, whatever the umask says.
            for path in folder.glob("*.safetensors"):
                shutil.copymode(folder / "config.json", path)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Upload weights, configuration and model card; options as `semvlp.model.hub.push`."""
        return push(self, repo_id, **options)

    def get_correct_attn_implementation(
        self, requested_attention: str | None, is_init_check: bool = False
    ) -> str:
        """Return the `attn_implementation` asked for: auto, varlen or sdpa."""
        return check_implementation(requested_attention)

    def get_input_embeddings(self) -> nn.Module:
        """Return the table [V, D] of word embeddings."""
        return self.base_model.get_submodule(WORDS)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Take another table [V, D]."""
        self.base_model.set_submodule(WORDS, value)

    def compile_blocks(self, **options: Any) -> None:
        """Compile every block of the encoder by torch.compile with these options, in place.

        Lengths differ from batch to batch, so shapes are dynamic unless the options say otherwise.
        All blocks share what is compiled; names of tensors stay as they are.
        """
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, BLOCK_VARIANTS)
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(**{"dynamic": True, "fullgraph": True, **options})

    def initialize_weights(self) -> None:
        """Give every weight that was not loaded its initial value."""
        super().initialize_weights()  # type: ignore[no-untyped-call]
        if self.config.cross_start == "self-attention":
            own = dict(self.named_parameters())
            for name, twin in attention_twins(own):
                initialization.copy_(own[twin], own[name])

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, RegionEmbeddings):
            initialization.normal_(module.mask, std=self.config.initializer_range)
            initialization.zeros_(module.feature_mean)
            initialization.ones_(module.feature_deviation)
