"""The detectors that are known by name, and where their weights are."""

from dataclasses import asdict, dataclass
from typing import Any

DEFAULT = "torchvision:fasterrcnn_resnet50_fpn_v2"


@dataclass(frozen=True, slots=True)
class Source:
    """A place where weights are, or were."""

    address: str
    """URL or `hf:` address; words where a person must fetch them."""
    reported: str = ""
    """When it was last reported alive or gone, and by whom; empty where no report is known."""
    megabytes: float | None = None
    sha256: str = ""
    """First digits of the file's hash, where they are known."""

    @property
    def is_fetched(self) -> bool:
        """Tell whether the program can download it."""
        return self.address.startswith(("http", "hf:"))

    def values(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the address with what is known of it."""
        known = [f"{self.megabytes:g} MB"] if self.megabytes else []
        known += [f"sha256 {self.sha256}..."] if self.sha256 else []
        known += [self.reported or "no report known"] if self.is_fetched or self.reported else []
        return f"{self.address} ({'; '.join(known)})" if known else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """A detector that is known by name."""

    what: str
    """The network and the data it was trained on."""
    sources: tuple[Source, ...]
    """Where its weights are, tried in turn."""
    network: str
    """Name in `networks.NETWORKS` or `networks.MODELS`."""
    published: bool = False
    """Its weights are a file of their own, which `--weights` may replace."""

    @property
    def weights(self) -> str:
        """Return the first address."""
        return self.sources[0].address


def _of_torchvision(name: str, what: str, file: str, ap: float, megabytes: float) -> DetectorSpec:
    """Return a model of torchvision's; what is told of its file is torchvision's own `meta`."""
    sha256 = file.rpartition("-")[2].partition(".")[0]
    address = f"https://download.pytorch.org/models/{file}"
    return DetectorSpec(
        what=f"torchvision's {what}, COCO classes, 1024 features, box AP {ap}",
        sources=(Source(address, _BY_TORCHVISION, megabytes, sha256),),
        network=name,
        published=True,
    )


def _of_detectron2(what: str, file: str, network: str) -> DetectorSpec:
    address = f"https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/{file}"
    return DetectorSpec(
        what=f"Faster R-CNN, {what}",
        sources=(Source(address, _ZOO_REPORT),),
        network=network,
        published=True,
    )


_BY_TORCHVISION = "the address that torchvision 0.29 itself downloads from"
_ZOO_REPORT = (
    "another file of this folder alive 2023-11-28 by Prayag22, facebookresearch/detectron2#4814"
)
_MILVLG = (
    Source("by hand from the links of https://github.com/MILVLG/bottom-up-attention.pytorch"),
)
KNOWN: dict[str, DetectorSpec] = {
    DEFAULT: _of_torchvision(
        "fasterrcnn_resnet50_fpn_v2",
        "Faster R-CNN, ResNet-50 FPN, second recipe (the default)",
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        46.7,
        167.104,
    ),
    "torchvision:maskrcnn_resnet50_fpn_v2": _of_torchvision(
        "maskrcnn_resnet50_fpn_v2",
        "Mask R-CNN, ResNet-50 FPN, second recipe, without its masks",
        "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
        47.4,
        177.219,
    ),
    "torchvision:fasterrcnn_resnet50_fpn": _of_torchvision(
        "fasterrcnn_resnet50_fpn",
        "Faster R-CNN, ResNet-50 FPN",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        37.0,
        159.743,
    ),
    "torchvision:maskrcnn_resnet50_fpn": _of_torchvision(
        "maskrcnn_resnet50_fpn",
        "Mask R-CNN, ResNet-50 FPN, without its masks",
        "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        37.9,
        169.84,
    ),
    "torchvision:fasterrcnn_mobilenet_v3_large_fpn": _of_torchvision(
        "fasterrcnn_mobilenet_v3_large_fpn",
        "Faster R-CNN, MobileNetV3-Large FPN",
        "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
        32.8,
        74.239,
    ),
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": _of_torchvision(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "Faster R-CNN, MobileNetV3-Large FPN at 320 pixels",
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
        22.8,
        74.239,
    ),
    "coco-r101-c4": _of_detectron2(
        "ResNet-101 C4, 80 COCO classes, 2048 features",
        "faster_rcnn_R_101_C4_3x/138204752/model_final_298dad.pkl",
        "resnet101_c4",
    ),
    "coco-r50-c4": _of_detectron2(
        "ResNet-50 C4, 80 COCO classes, 2048 features",
        "faster_rcnn_R_50_C4_3x/137849393/model_final_f97cb7.pkl",
        "resnet50_c4",
    ),
    "coco-r101-fpn": _of_detectron2(
        "ResNet-101 FPN, 80 COCO classes, 1024 features",
        "faster_rcnn_R_101_FPN_3x/137851257/model_final_f6e8b1.pkl",
        "resnet101_fpn",
    ),
    "coco-r50-fpn": _of_detectron2(
        "ResNet-50 FPN, 80 COCO classes, 1024 features",
        "faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl",
        "resnet50_fpn",
    ),
    "coco-x101-fpn": _of_detectron2(
        "ResNeXt-101 32x8d FPN, 80 COCO classes, 1024 features",
        "faster_rcnn_X_101_32x8d_FPN_3x/139173657/model_final_68b088.pkl",
        "resnext101_fpn",
    ),
    "butd": DetectorSpec(
        what="bottom-up attention for PyTorch (airsplay, LXMERT), Visual Genome classes and "
        "attributes; also Hugging Face's unc-nlp/frcnn-vg-finetuned",
        sources=(
            Source(
                "http://nlp.cs.unc.edu/models/faster_rcnn_from_caffe_attr.pkl",
                "trouble reported in airsplay/py-bottom-up-attention#18",
                262,
            ),
            Source(
                "https://s3.amazonaws.com/models.huggingface.co/bert/unc-nlp/frcnn-vg-finetuned/"
                "pytorch_model.bin",
                "in use 2021-04-05 by facebookresearch/mmf#858",
            ),
            Source(
                "hf:unc-nlp/frcnn-vg-finetuned",
                "gone 2025-05-11 by MM20240408, hila-chefer/Transformer-MM-Explainability#42",
            ),
        ),
        network="resnet101_c4_butd",
        published=True,
    ),
    "butd-caffe": DetectorSpec(
        what="bottom-up attention with the arithmetic of Caffe (MILVLG bua-caffe-frcn-r101*.pth)",
        sources=_MILVLG,
        network="resnet101_c4_caffe",
        published=True,
    ),
    "milvlg-r50": DetectorSpec(
        what="bottom-up attention retrained with detectron2, ResNet-50 (MILVLG bua-d2-frcn-r50)",
        sources=_MILVLG,
        network="resnet50_c4_milvlg",
        published=True,
    ),
    "milvlg-r101": DetectorSpec(
        what="bottom-up attention retrained with detectron2, ResNet-101 (MILVLG bua-d2-frcn-r101)",
        sources=_MILVLG,
        network="resnet101_c4_milvlg",
        published=True,
    ),
    "vinvl": DetectorSpec(
        what="VinVL, ResNeXt-152 32x8d C4, 1594 classes and 524 attributes, 2048 features",
        sources=(
            Source(
                "https://dl.fbaipublicfiles.com/mmf/data/models/vinvl/detection/"
                "vinvl_vg_x152c4.pth",
            ),
            Source(
                "hf:michelecafagna26/vinvl_vg_x152c4/vinvl_vg_x152c4.pth",
                "the repository alive 2023-12-30 by sarvghotra, pzzhang/VinVL#39",
            ),
            Source(
                "by hand from https://drive.google.com/file/d/1nvu8y4zZFbJqSqLdQClvMyzsbBeX-oaQ",
                "alive 2024-01-31 by pzzhang, its author, pzzhang/VinVL#32",
            ),
        ),
        network="resnext152_c4_vinvl",
        published=True,
    ),
    "demo": DetectorSpec(
        what="a small network for the drawn world of `semvlp demo`, 256 features, fast on a CPU",
        sources=(Source("part of this package, works offline"),),
        network="small",
    ),
    "untrained": DetectorSpec(
        what="ResNet-50 C4 with an attribute head, for trying out the plumbing without a download",
        sources=(Source("random from a fixed seed, works offline"),),
        network="resnet50_c4",
    ),
}
