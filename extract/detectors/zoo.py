"""Opening a detector, by whichever backend has it."""

import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from semvlp.doctor import without_detectron2
from semvlp.errors import ConfigError, InputError, shown
from semvlp.extract.detectors.detector import Detector, Runner
from semvlp.extract.detectors.known import DEFAULT, KNOWN, DetectorSpec
from semvlp.extract.networks import MODELS, NETWORKS
from semvlp.extract.weights.download import fetch
from semvlp.names import Backend, Precision
from semvlp.settings import override

if TYPE_CHECKING:
    from semvlp.extract.detectors.batched import Execution

log = logging.getLogger(__name__)


def check_detector(
    spec: str | None,
    weights: str | None = None,
    settings: Sequence[str] = (),
    features: str | None = None,
    labels: Sequence[Path] = (),
) -> None:
    """Check a detector that `load_detector` is to open as far as that takes neither torch nor time.

    Raises:
        ConfigError: an unknown spec, weights for one that has its own, an unknown setting, or
            features of no network of transformers.
        InputError: `weights` is the path of no file, or one of `labels` where words name nothing.
    """
    name = spec or DEFAULT
    known = KNOWN.get(name)
    if not (known or is_config(name) or _is_of_transformers(name) or Path(name).is_dir()):
        raise ConfigError(_unknown(name))
    for path in labels if not _is_of_transformers(name) else ():
        if not os.path.isfile(path):  # may be a sentence, longer than a path can be
            raise InputError(
                f"--labels {shown(str(path), 500)}: there is no such file; words are for "
                "detectors of open vocabulary (--detector hf:OWNER/NAME)"
            )
    if features and not _is_of_transformers(features):
        raise ConfigError(
            f"--features {features!r} must be hf:OWNER/NAME, or a folder that transformers wrote"
        )
    if weights and not (is_config(name) or (known and known.published)):
        raise ConfigError(f"--detector {name} has its own weights; leave --weights out")
    if known and known.network in MODELS:
        override(MODELS[known.network], settings)
    elif known:
        override(NETWORKS[known.network], settings)
    elif settings and _is_of_transformers(name):
        raise ConfigError(f"--detector {name} has no settings of ours; leave --set out")
    if weights and not weights.startswith("hf:") and "://" not in weights:
        with _remedied(known):
            fetch(weights.partition("#")[0])  # its hash is left to whoever opens it


def load_detector(
    spec: str | None,
    *,
    weights: str | None = None,
    backend: Backend = "auto",
    device: str = "auto",
    precision: Precision = "fp32",
    settings: Sequence[str] = (),
    features: str | None = None,
    features_side: int | None = None,
) -> Detector:
    """Open a detector.

    Args:
        spec: a name in `KNOWN` (None is `DEFAULT`), a directory that `train_detector` wrote, a
            detectron2 config (a YAML file or a name in its model zoo), or a detector of
            transformers (`hf:OWNER/NAME` or a folder).
        weights: path, URL or `hf:OWNER/NAME[/FILE]` of weights instead of the spec's own.
        backend: the library that runs the network. `auto` is torchvision where it has the network,
            because that runs everywhere and gives everyone the same profile; detectron2 for its
            configs, transformers for its detectors.
        device: a name that `semvlp.distributed.device_of` knows.
        precision: of the convolutions; boxes and probabilities are always fp32. `auto` is bf16
            where the device multiplies it by itself.
        settings: `name=value` for fields of the network's `NetworkConfig` or `ModelConfig`, such as
            `shorter_side=400`; for a detectron2 config keys of its own, `INPUT.MIN_SIZE_TEST=400`.
        features: a vision transformer that describes the regions instead (`hf:OWNER/NAME` or a
            folder); see `with_patch_features`.
        features_side: side of the square with as many pixels as it sees; None is its own.

    Raises:
        ConfigError: an unknown spec or setting, a backend that cannot run it or is not installed.
        InputError: weights that cannot be had or do not fit; says what to do instead.
    """
    check_detector(spec, weights, settings, features)
    name = spec or DEFAULT
    known = KNOWN.get(name)
    only = _sole_backend(name)
    if only and backend not in ("auto", only):
        raise ConfigError(f"--detector {name} is run by {only} alone; --backend auto takes it")
    runner: Runner = only or ("torchvision" if backend == "auto" else backend)
    log.info("detector %s, run by %s", name, runner)
    runners = {
        "torchvision": _with_torchvision,
        "detectron2": _with_detectron2,
        "transformers": _with_transformers,
    }
    with _remedied(known):
        detector = runners[runner](name, weights, device, precision, settings)
    if features is None:
        return detector
    from semvlp.extract.detectors.on_transformers.patches import with_patch_features

    log.info("regions described by %s", features)
    return with_patch_features(detector, features, features_side, _execution(device, precision))


def _sole_backend(name: str) -> Runner | None:
    """Return the backend that alone has the network, None where both do."""
    if is_config(name):
        return "detectron2"
    if _is_of_transformers(name):
        return "transformers"
    if name in KNOWN:
        return "torchvision" if KNOWN[name].network in ("small", *MODELS) else None
    from semvlp.extract.weights.checkpoint import DESCRIPTION, read_description

    network = read_description(Path(name, DESCRIPTION)).network
    if network is None:
        return "detectron2"
    return "torchvision" if network.backbone == "small" else None


def _with_torchvision(
    name: str, weights: str | None, device: str, precision: Precision, settings: Sequence[str]
) -> Detector:
    from semvlp.extract.detectors.on_torchvision import backend as torchvision
    from semvlp.extract.detectors.on_torchvision import models

    execution = _execution(device, precision)
    spec = KNOWN.get(name)
    if spec is None:
        return torchvision.open_trained(Path(name, "detector.json"), execution, settings)
    if name == "demo":
        path = Path(__file__).with_name("demo_detector.json")
        return torchvision.open_trained(path, execution, settings)
    if spec.network in MODELS:
        model = override(MODELS[spec.network], settings)
        return models.open_model(model, _weights(spec, weights), execution)
    config = override(NETWORKS[spec.network], settings)
    if name == "untrained":
        return torchvision.open_untrained(config, execution)
    return torchvision.open_published(spec.network, config, _weights(spec, weights), execution)


def _with_detectron2(
    name: str, weights: str | None, device: str, precision: Precision, settings: Sequence[str]
) -> Detector:
    try:
        from semvlp.extract.detectors.on_detectron2 import backend as detectron2
    except (ImportError, OSError) as error:
        raise without_detectron2(error, f"--detector {name}") from error
    from semvlp.extract.weights.checkpoint import DESCRIPTION

    execution = _execution(device, precision)
    spec = KNOWN.get(name)
    if is_config(name):
        return detectron2.open_config(name, weights, execution, settings)
    if spec is None:
        return detectron2.open_trained(Path(name, DESCRIPTION), execution, settings)
    config = override(NETWORKS[spec.network], settings)
    if name == "untrained":
        return detectron2.open_untrained(config, execution)
    return detectron2.open_published(spec.network, config, _weights(spec, weights), execution)


def _with_transformers(
    name: str, weights: str | None, device: str, precision: Precision, settings: Sequence[str]
) -> Detector:
    from semvlp.extract.detectors.on_transformers.backend import open_detector

    if not _is_of_transformers(name):
        raise ConfigError(f"--detector {name} is no detector of transformers; leave --backend out")
    return open_detector(name, _execution(device, precision))


def _execution(device: str, precision: Precision) -> "Execution":
    from semvlp.distributed import device_of, precision_of
    from semvlp.extract.detectors.batched import Execution

    chosen = device_of(device, setting="--device")
    return Execution(str(chosen), precision_of(precision, chosen))


def _weights(spec: DetectorSpec, given: str | None) -> Path:
    """Return the file with the weights of a published detector, from the first source that has it.

    Raises:
        InputError: no source has it; says what is wrong with each.
        ConfigError: the same, and one was not asked, because it is plain HTTP.
    """
    if given:
        return fetch(given)
    failures: list[str] = []
    not_asked: list[str] = []
    for source in filter(lambda source: source.is_fetched, spec.sources):
        try:
            return fetch(source.address)
        except (ConfigError, InputError) as error:
            log.warning("%s", error)
            (not_asked if isinstance(error, ConfigError) else failures).append(str(error))
    if not_asked:  # comes last, because it says which option helps
        raise ConfigError("\n".join([*failures, *not_asked]))
    raise InputError("\n".join(failures) or f"these weights must be downloaded {spec.weights}")


def _is_of_transformers(name: str) -> bool:
    """Tell whether a name is that of a detector on the hub, or of a folder transformers wrote."""
    is_folder = Path(name, "config.json").is_file() and not Path(name, "detector.json").exists()
    return name.startswith("hf:") or is_folder


def is_config(name: str) -> bool:
    """Tell whether a name is that of a detectron2 config: a file, or one of its model zoo."""
    return name.endswith((".yaml", ".yml"))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(KNOWN)}"
    return (
        f"--detector {name!r} must be a known name, a directory made by `semvlp detector train`, "
        f"a detectron2 .yaml config or hf:OWNER/NAME; {hint}"
    )


@contextmanager
def _remedied(spec: DetectorSpec | None) -> Iterator[None]:
    """Add to an InputError inside what to do where published weights cannot be had."""
    try:
        yield
    except InputError as error:
        if not (spec and spec.published):
            raise
        by_hand = [source.address for source in spec.sources if not source.is_fetched]
        where = by_hand[0] if by_hand else f"{spec.weights} elsewhere"
        raise InputError(
            f"{error}\nTo go on: download {where} and give it as --weights PATH, "
            "train a detector for your images with `semvlp detector train`, or try --detector demo "
            "(drawn shapes)."
        ) from error
