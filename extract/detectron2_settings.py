"""Reading detectron2 configs: files, names in its model zoo, and settings over them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog

from semvlp.errors import ConfigError
from semvlp.extract.detectron2_config import ADDED, settings_of
from semvlp.extract.networks import NetworkConfig
from semvlp.extract.published import object_labels
from semvlp.extract.resize import ResizeRule


def default_config() -> CfgNode:
    """detectron2's default config with the keys of `detectron2_config.ADDED`."""
    cfg = get_cfg()
    _add(cfg, ADDED)
    return cfg


def set_keys(cfg: CfgNode, settings: Sequence[str]) -> None:
    """Change a config by `KEY=value`.

    Raises:
        ConfigError: a key that it does not have, or no value.
    """
    for each in settings:
        name, separator, value = each.partition("=")
        try:
            cfg.merge_from_list([name, value] if separator else [name])
        except (KeyError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"--set {each}: must be KEY=value with a key of detectron2's config, "
                f"such as INPUT.MIN_SIZE_TEST=400 ({error})"
            ) from error


def config_of(config: NetworkConfig, *, num_objects: int, num_attributes: int) -> CfgNode:
    """A network config in detectron2's words."""
    cfg = default_config()
    tree = settings_of(config, num_objects=num_objects, num_attributes=num_attributes)
    cfg.merge_from_other_cfg(CfgNode(tree))
    return cfg


def read_config(name: str) -> CfgNode:
    """The config of a file, or of a name in the model zoo with the zoo's own weights.

    Raises:
        ConfigError: it is neither.
    """
    cfg = default_config()
    if Path(name).is_file():
        cfg.merge_from_file(name)
        return cfg
    try:
        cfg.merge_from_file(model_zoo.get_config_file(name))
        cfg.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--detector {name}: no such file, and no name in detectron2's model zoo ({error})"
        ) from error
    return cfg


def labels_of(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the test data set where detectron2 knows them."""
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for dataset in cfg.DATASETS.TEST:
        names = MetadataCatalog.get(dataset).get("thing_classes", ())
        if len(names) == count:
            return tuple(names)
    return object_labels(count)


def resize_rule_of(cfg: CfgNode) -> ResizeRule:
    """How images are resized, for learning too."""
    return ResizeRule(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.RESIZE)


def config_sha256(cfg: CfgNode) -> str:
    """Hash of what shapes the numbers; where the weights lie and where it runs do not."""
    shaping = json.loads(json.dumps({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT}))
    del shaping["MODEL"]["WEIGHTS"], shaping["MODEL"]["DEVICE"]
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def address_of(weights: str) -> str:
    """detectron2's own addresses as URLs."""
    return weights.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/", 1)


def _add(cfg: CfgNode, tree: dict[str, Any]) -> None:
    """Keys that detectron2's config does not have yet."""
    for name, value in tree.items():
        if isinstance(value, dict) and name in cfg:
            _add(cfg[name], value)
        else:
            cfg[name] = CfgNode(value) if isinstance(value, dict) else value
