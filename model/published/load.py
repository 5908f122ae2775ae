"""Weights to start from into the shared encoder, whichever family they are of."""

import logging
from collections.abc import Callable

from semvlp.errors import ConfigError
from semvlp.model.config import SemVLPConfig
from semvlp.model.hub import read_encoder
from semvlp.model.network import SemVLPNetwork
from semvlp.model.published.bert import load_bert
from semvlp.model.published.lxmert import load_lxmert
from semvlp.model.published.visual_bert import load_visual_bert
from semvlp.model.semvlp import SemVLPModel
from semvlp.model.weights import LoadReport, check_options, copy_tensors

FAMILIES: dict[str, Callable[[SemVLPNetwork, str], LoadReport]] = {
    "bert": load_bert,
    "lxmert": load_lxmert,
    "visual_bert": load_visual_bert,
}


# Choices that no shape of a tensor tells; the sizes are checked with the tensors.
OPTIONS = ("cross_attention", "box_size", "box_encoding", "region_embedding", "image_token")


def load_own(model: SemVLPNetwork, name_or_path: str) -> LoadReport:
    """Fill the whole encoder from a SemVLP checkpoint of the same sizes; its heads stay behind.

    Raises:
        ConfigError: the checkpoint cannot be had.
        WeightsError: its encoder is another.
    """
    own, heads = read_encoder(SemVLPModel, name_or_path)
    wanted = {name: getattr(own.config, name) for name in OPTIONS}
    check_options(model.config, name_or_path, "its", wanted)
    required = list(model.state_dict())
    return copy_tensors(model, own.state_dict(), name_or_path, required=required, unused=heads)


STARTS = {**FAMILIES, "semvlp": load_own}


def model_type(name_or_path: str) -> str:
    """Return what a checkpoint's config.json says it is of; no code of it is asked.

    Raises:
        OSError: there is no checkpoint.
        ConfigFileError: its config.json is damaged.
    """
    config, _ = SemVLPConfig.get_config_dict(name_or_path)
    return str(config.get("model_type"))


def load_published(model: SemVLPNetwork, name_or_path: str) -> LoadReport:
    """Fill `model` from a checkpoint of BERT, LXMERT, VisualBERT or our own, as config.json says.

    Whatever was not loaded is logged as a warning.

    Raises:
        ConfigError: the checkpoint cannot be had, or is of another family.
        ConfigFileError: its config.json is damaged.
        WeightsError: its tensors do not fit `model`.
    """
    try:
        kind = model_type(name_or_path)
    except OSError as error:
        raise ConfigError(
            f"model.pretrained must be a local directory with a checkpoint or a name that the "
            f"Hugging Face hub gives out; {name_or_path!r} could not be read: {error}"
        ) from error
    if kind not in STARTS:
        raise ConfigError(
            f"model.pretrained must be a checkpoint of {', '.join(STARTS)}, got {kind} for "
            f"{name_or_path!r}"
        )
    report = STARTS[kind](model, name_or_path)
    logging.getLogger(__name__).warning("%s", report)
    return report
