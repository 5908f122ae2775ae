"""The detectors that are known by name, and how one is opened by whichever backend has it."""

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semvlp.doctor import without_detectron2
from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Detector, Runner
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.download import fetch
from semvlp.names import Backend, Precision
from semvlp.settings import override

if TYPE_CHECKING:
    from semvlp.extract.detectors.batched import Execution

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """A detector that is known by name."""

    what: str
    """The network and the data it was trained on."""
    weights: str
    """URL of its weights; where none are downloaded, where they come from."""
    network: str
    """Name in `networks.NETWORKS`."""
    published: bool = False
    """Its weights are a file of their own, which `--weights` may replace."""


_ZOO = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection"
_MILVLG = "by hand from the links of https://github.com/MILVLG/bottom-up-attention.pytorch"
DEFAULT = "coco-r101-c4"
KNOWN: dict[str, DetectorSpec] = {
    DEFAULT: DetectorSpec(
        what="the default: Faster R-CNN, ResNet-101 C4, 80 COCO classes, 2048 features",
        weights=f"{_ZOO}/faster_rcnn_R_101_C4_3x/138204752/model_final_298dad.pkl",
        network="resnet101_c4",
        published=True,
    ),
    "coco-r50-c4": DetectorSpec(
        what="Faster R-CNN, ResNet-50 C4, 80 COCO classes, 2048 features",
        weights=f"{_ZOO}/faster_rcnn_R_50_C4_3x/137849393/model_final_f97cb7.pkl",
        network="resnet50_c4",
        published=True,
    ),
    "coco-r101-fpn": DetectorSpec(
        what="Faster R-CNN, ResNet-101 FPN, 80 COCO classes, 1024 features",
        weights=f"{_ZOO}/faster_rcnn_R_101_FPN_3x/137851257/model_final_f6e8b1.pkl",
        network="resnet101_fpn",
        published=True,
    ),
    "coco-r50-fpn": DetectorSpec(
        what="Faster R-CNN, ResNet-50 FPN, 80 COCO classes, 1024 features",
        weights=f"{_ZOO}/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl",
        network="resnet50_fpn",
        published=True,
    ),
    "coco-x101-fpn": DetectorSpec(
        what="Faster R-CNN, ResNeXt-101 32x8d FPN, 80 COCO classes, 1024 features",
        weights=f"{_ZOO}/faster_rcnn_X_101_32x8d_FPN_3x/139173657/model_final_68b088.pkl",
        network="resnext101_fpn",
        published=True,
    ),
    "butd": DetectorSpec(
        what="bottom-up attention for PyTorch (airsplay, LXMERT), Visual Genome classes and "
        "attributes; also Hugging Face's unc-nlp/frcnn-vg-finetuned",
        weights="http://nlp.cs.unc.edu/models/faster_rcnn_from_caffe_attr.pkl",
        network="resnet101_c4_butd",
        published=True,
    ),
    "butd-caffe": DetectorSpec(
        what="bottom-up attention with the arithmetic of Caffe (MILVLG bua-caffe-frcn-r101*.pth)",
        weights=_MILVLG,
        network="resnet101_c4_caffe",
        published=True,
    ),
    "milvlg-r50": DetectorSpec(
        what="bottom-up attention retrained with detectron2, ResNet-50 (MILVLG bua-d2-frcn-r50)",
        weights=_MILVLG,
        network="resnet50_c4_milvlg",
        published=True,
    ),
    "milvlg-r101": DetectorSpec(
        what="bottom-up attention retrained with detectron2, ResNet-101 (MILVLG bua-d2-frcn-r101)",
        weights=_MILVLG,
        network="resnet101_c4_milvlg",
        published=True,
    ),
    "vinvl": DetectorSpec(
        what="VinVL, ResNeXt-152 32x8d C4, 1594 classes and 524 attributes, 2048 features",
        weights="https://dl.fbaipublicfiles.com/mmf/data/models/vinvl/detection/"
        "vinvl_vg_x152c4.pth",
        network="resnext152_c4_vinvl",
        published=True,
    ),
    "demo": DetectorSpec(
        what="a small network for the drawn world of `semvlp demo`, 256 features, fast on a CPU",
        weights="part of this package, works offline",
        network="small",
    ),
    "untrained": DetectorSpec(
        what="ResNet-50 C4 with an attribute head, for trying out the plumbing without a download",
        weights="random from a fixed seed, works offline",
        network="resnet50_c4",
    ),
}


def check_detector(
    spec: str | None, weights: str | None = None, settings: Sequence[str] = ()
) -> None:
    """Check a detector that `load_detector` is to open as far as that takes neither torch nor time.

    Raises:
        ConfigError: an unknown spec, weights for one that has its own, or an unknown setting.
        InputError: `weights` is the path of no file.
    """
    name = spec or DEFAULT
    known = KNOWN.get(name)
    if not (known or is_config(name) or Path(name).is_dir()):
        raise ConfigError(_unknown(name))
    if weights and not (is_config(name) or (known and known.published)):
        raise ConfigError(f"--detector {name} has its own weights; leave --weights out")
    if known:
        override(NETWORKS[known.network], settings)
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
) -> Detector:
    """Open a detector.

    Args:
        spec: a name in `KNOWN` (None is `DEFAULT`), a directory that `train_detector` wrote, or a
            detectron2 config: a YAML file or a name in its model zoo.
        weights: path, URL or `hf:OWNER/NAME[/FILE]` of weights instead of the spec's own.
        backend: the library that runs the network. `auto` is torchvision where it has the network,
            because that runs everywhere and gives everyone the same profile; detectron2 for its
            configs.
        device: a name that `semvlp.distributed.device_of` knows.
        precision: of the convolutions; boxes and probabilities are always fp32. `auto` is bf16
            where the device multiplies it by itself.
        settings: `name=value` for fields of the network's `NetworkConfig`, such as
            `shorter_side=400`; for a detectron2 config keys of its own, `INPUT.MIN_SIZE_TEST=400`.

    Raises:
        ConfigError: an unknown spec or setting, a backend that cannot run it or is not installed.
        InputError: weights that cannot be had or do not fit; says what to do instead.
    """
    check_detector(spec, weights, settings)
    name = spec or DEFAULT
    known = KNOWN.get(name)
    only = _sole_backend(name)
    if only and backend not in ("auto", only):
        raise ConfigError(f"--detector {name} is run by {only} alone; --backend auto takes it")
    runner = only or ("detectron2" if backend == "detectron2" else "torchvision")
    log.info("detector %s, run by %s", name, runner)
    run = _with_detectron2 if runner == "detectron2" else _with_torchvision
    with _remedied(known):
        return run(name, weights, device, precision, settings)


def _sole_backend(name: str) -> Runner | None:
    """Return the backend that alone has the network, None where both do."""
    if is_config(name):
        return "detectron2"
    if name in KNOWN:
        return "torchvision" if KNOWN[name].network == "small" else None
    from semvlp.extract.weights.checkpoint import DESCRIPTION, read_description

    network = read_description(Path(name, DESCRIPTION)).network
    if network is None:
        return "detectron2"
    return "torchvision" if network.backbone == "small" else None


def _with_torchvision(
    name: str, weights: str | None, device: str, precision: Precision, settings: Sequence[str]
) -> Detector:
    from semvlp.extract.detectors.on_torchvision import backend as torchvision

    execution = _execution(device, precision)
    spec = KNOWN.get(name)
    if spec is None:
        return torchvision.open_trained(Path(name, "detector.json"), execution, settings)
    if name == "demo":
        path = Path(__file__).with_name("demo_detector.json")
        return torchvision.open_trained(path, execution, settings)
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


def _execution(device: str, precision: Precision) -> "Execution":
    from semvlp.distributed import device_of, precision_of
    from semvlp.extract.detectors.batched import Execution

    chosen = device_of(device, setting="--device")
    return Execution(str(chosen), precision_of(precision, chosen))


def _weights(spec: DetectorSpec, given: str | None) -> Path:
    """Return the file with the weights of a published detector."""
    if not given and not spec.weights.startswith("http"):
        raise InputError(f"these weights must be downloaded {spec.weights}")
    return fetch(given or spec.weights)


def is_config(name: str) -> bool:
    """Tell whether a name is that of a detectron2 config: a file, or one of its model zoo."""
    return name.endswith((".yaml", ".yml"))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(KNOWN)}"
    return (
        f"--detector {name!r} must be a known name, a directory made by `semvlp detector train` or "
        f"a detectron2 .yaml config; {hint}"
    )


@contextmanager
def _remedied(spec: DetectorSpec | None) -> Iterator[None]:
    """Add to an InputError inside what to do where published weights cannot be had."""
    try:
        yield
    except InputError as error:
        if not (spec and spec.published):
            raise
        where = "elsewhere " if spec.weights.startswith("http") else ""
        raise InputError(
            f"{error}\nTo go on: download {spec.weights} {where}and give it as --weights PATH, "
            "train a detector for your images with `semvlp detector train`, or try --detector demo "
            "(drawn shapes)."
        ) from error
