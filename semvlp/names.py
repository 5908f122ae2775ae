"""The names that a user may give: the one source of every list that the command line shows.

They are known without loading a room, for `--help` lists them. What a name stands for is said where
it is done: `TASKS` of `eval`, `PRESETS` of `extract`, `SIZES` of `demo`, the networks in `model`.
"""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda", "xpu", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Backend = Literal["auto", "detectron2", "torchvision", "transformers"]
PresetName = Literal["butd_36", "butd_10_100", "maxnms_36", "vinvl_nms1", "vinvl_nms2", "top_100"]
View = Literal["butd_36", "butd_10_100"]
"""The presets that can be cut from what `top_100` stored: they choose by a confidence it keeps."""
StoreFormat = Literal["tar", "lmdb"]
StoreKind = Literal["tar", "lmdb", "reference"]
"""A store that refers to another one is made by joining texts alone, not chosen as a format."""
TaskName = Literal["vqa", "gqa", "nlvr2", "nlvr", "snli-ve", "retrieval", "refcoco", "table"]
EvalMode = Literal["both", "single", "two"]
DemoSize = Literal["small", "full"]
Shell = Literal["bash", "zsh", "fish"]

# The choices that make a network, and so settings.
SizePreset = Literal["tiny", "small", "base", "large"]
PairHead = Literal["concatenation", "attention"]
CrossAttention = Literal["shared", "separate", "tied"]
CrossStart = Literal["fresh", "self-attention"]
BoxSize = Literal[4, 5, 7]
BoxEncoding = Literal["linear", "fourier"]
RegionEmbedding = Literal["mean-of-norms", "sum", "sum-of-norms"]
ImageToken = Literal["none", "mean"]

DEVICES: tuple[Device, ...] = get_args(Device)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRESETS: tuple[PresetName, ...] = get_args(PresetName)
VIEWS: tuple[View, ...] = get_args(View)
STORE_FORMATS: tuple[StoreFormat, ...] = get_args(StoreFormat)
TASKS: tuple[TaskName, ...] = get_args(TaskName)
EVAL_MODES: tuple[EvalMode, ...] = get_args(EvalMode)
DEMO_SIZES: tuple[DemoSize, ...] = get_args(DemoSize)
SHELLS: tuple[Shell, ...] = get_args(Shell)
SERVE = ("starlette", "uvicorn", "python_multipart")
"""The modules that the extra `serve` installs."""
