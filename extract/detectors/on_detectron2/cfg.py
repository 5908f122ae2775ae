"""Reading detectron2 configs: files, names in its model zoo, and settings over them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog

from semvlp.errors import ConfigError
from semvlp.extract.detectors.on_detectron2.cfg_of import ADDED, settings_of
from semvlp.extract.detectors.published import numbered
from semvlp.extract.images.resize import ResizeRule
from semvlp.extract.networks import NetworkConfig

# What detectron2 and yacs raise on a config that is none; a `_BASE_` may lead back to itself.
_WRONG: tuple[type[Exception], ...] = (
    *(yaml.YAMLError, OSError, RecursionError),
    *(KeyError, AssertionError, ValueError, TypeError, AttributeError),
)


def default_config() -> CfgNode:
    """Return detectron2's default config with the keys of `cfg_of.ADDED`."""
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
        except _WRONG as error:
            raise ConfigError(
                f"--set {each}: must be KEY=value with a key of detectron2's config, "
                f"such as INPUT.MIN_SIZE_TEST=400 ({error})"
            ) from error


def config_of(config: NetworkConfig, *, num_objects: int, num_attributes: int) -> CfgNode:
    """Return a network config in detectron2's words."""
    cfg = default_config()
    tree = settings_of(config, num_objects=num_objects, num_attributes=num_attributes)
    cfg.merge_from_other_cfg(CfgNode(tree))
    return cfg


def read_config(name: str) -> CfgNode:
    """Read the config of a file, or of a name in the model zoo with the zoo's own weights.

    Raises:
        ConfigError: it is neither, is damaged, or has a key that detectron2's config does not have.
    """
    if Path(name).is_file():
        return _read_file(name)
    try:
        path = model_zoo.get_config_file(name)
        weights = model_zoo.get_checkpoint_url(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--detector {name}: no such file, and no name in detectron2's model zoo ({error})"
        ) from error
    cfg = _read_file(path)
    cfg.MODEL.WEIGHTS = weights
    return cfg


def stored_config(text: str, source: str) -> CfgNode:
    """Read the config that `text`, of the file `source`, is as YAML; raises as `read_config`."""
    cfg = default_config()
    with _one_error(source):
        cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
    return cfg


def labels_of(cfg: CfgNode) -> tuple[str, ...]:
    """Return the names of classes if all data sets of the config are known and agree, else numbers.

    A data set of the user's own is not known, and a config that names it may still inherit COCO's
    for the other half.
    """
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    known = {
        tuple(MetadataCatalog.get(name).get("thing_classes", ()))
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    }
    names = known.pop() if len(known) == 1 else ()
    return names if len(names) == count else numbered("object", count)


def resize_rule_of(cfg: CfgNode) -> ResizeRule:
    """Return how images are resized, for learning too."""
    return ResizeRule(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.RESIZE)


def check_format(cfg: CfgNode, name: str) -> None:
    """Check that the config `name` wants colours that images are given in.

    Raises:
        ConfigError: detectron2 has others too, such as YUV-BT.601.
    """
    if cfg.INPUT.FORMAT not in ("BGR", "RGB"):
        raise ConfigError(f"{name}: INPUT.FORMAT must be BGR or RGB, found {cfg.INPUT.FORMAT!r}")


def config_sha256(cfg: CfgNode) -> str:
    """Hash what shapes the numbers; where the weights lie and where it runs do not."""
    shaping = json.loads(json.dumps({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT}))
    del shaping["MODEL"]["WEIGHTS"], shaping["MODEL"]["DEVICE"]
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def address_of(weights: str) -> str:
    """Return detectron2's own addresses as URLs."""
    return weights.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/", 1)


def _add(cfg: CfgNode, tree: dict[str, Any]) -> None:
    """Add keys that detectron2's config does not have yet."""
    for name, value in tree.items():
        if isinstance(value, dict) and name in cfg:
            _add(cfg[name], value)
        else:
            cfg[name] = CfgNode(value) if isinstance(value, dict) else value


def _read_file(name: str) -> CfgNode:
    cfg = default_config()
    with _one_error(name):
        # Without this detectron2 runs whatever a tag such as `!!python/object/apply` names.
        cfg.merge_from_file(name, allow_unsafe=False)
    return cfg


@contextmanager
def _one_error(source: str) -> Iterator[None]:
    """Raise what is wrong with the config in `source` as one line."""
    try:
        yield
    except _WRONG as error:
        raise ConfigError(
            f"{source}: must be a detectron2 config in plain YAML, without !!python tags and with "
            f"the keys of detectron2's config alone ({' '.join(str(error).split())})"
        ) from error
