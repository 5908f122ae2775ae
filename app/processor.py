"""The processor of a checkpoint, as transformers has them: photographs and texts to a batch.

B examples of I images, Z labels; T tokens, R regions.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from semvlp.app.eyes import Seeing, Seen
from semvlp.app.reply import Answer
from semvlp.errors import InputError
from semvlp.eval.limits import DEFAULT_LIMITS
from semvlp.eval.lookup import pair_regions
from semvlp.model.config import SemVLPConfig, processor_values
from semvlp.model.padded import PaddedInputs, pad
from semvlp.model.tokenizer import encode

STORED = ("region_profile", "labels", "exclusive", "images", "max_text_length", "max_regions")
NOT_STORED = ("detector", "device")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class SemVLPProcessor(Seeing, ProcessorMixin):
    """The tokenizer of a checkpoint, the detector of its regions, and its labels.

    Every checkpoint of training holds what it is made of; `AutoProcessor.from_pretrained` opens it.
    """

    # transformers takes the settings of a processor from this signature and stores their values.
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        region_profile: Mapping[str, Any] | None = None,
        labels: Sequence[str] = (),
        exclusive: bool = True,
        images: int = 1,
        max_text_length: int = DEFAULT_LIMITS.max_text_length,
        max_regions: int = DEFAULT_LIMITS.max_regions,
        detector: str | None = None,
        device: str = "auto",
    ) -> None:
        """Make a processor.

        Args:
            region_profile: which regions the network was trained on; the detector is found by it.
            labels: the Z labels of the network in the order of its logits.
            exclusive: whether one label alone is right, or each by itself may be.
            images: photographs of an example: 2 for the pair head.
            max_text_length: longest text in word pieces, [CLS] and [SEP] included.
            max_regions: only the most confident regions of a photograph are used, this many.
            detector: the one that gave the regions, where it is not known by name. Not stored.
            device: where it runs. Not stored.
        """
        super().__init__(tokenizer)  # type: ignore[no-untyped-call]
        self.region_profile, self.labels = region_profile, list(labels)
        self.exclusive, self.images = exclusive, images
        self.max_text_length, self.max_regions = max_text_length, max_regions
        self.detector, self.device = detector, device

    def __call__(
        self,
        images: Seen | Sequence[Seen | tuple[Seen, Seen]],
        text: str | Sequence[str],
    ) -> BatchFeature:
        """Turn B photographs, or pairs of them, and as many texts into the inputs of a model.

        Args:
            images: a path, an image of Pillow, RGB pixels [H, W, 3], or regions, which spare the
                detector; or a list of B such, or of B pairs where an example has two.

        Returns:
            `PaddedInputs`, as a BatchFeature.

        Raises:
            ConfigError: the detector cannot be found.
            InputError: a photograph that cannot be read, or other numbers of photographs and texts.
        """
        texts = [text] if isinstance(text, str) else list(text)
        examples = images if isinstance(images, list) else [images]
        groups = [each if isinstance(each, tuple | list) else (each,) for each in examples]
        if len(texts) != len(groups) or any(len(group) != self.images for group in groups):
            raise InputError(
                f"there must be as many texts as examples, each with {self.images} photograph"
                f"{'s'[: self.images > 1]}, got {len(texts)} texts and examples with "
                f"{', '.join(str(len(group)) for group in groups)}"
            )
        regions = [pair_regions(self.regions(seen), self.max_regions) for g in groups for seen in g]
        ids = encode(self.tokenizer, texts, self.max_text_length)
        return BatchFeature(dict(pad(ids, regions, images=self.images)))

    def post_process(self, outputs: Any, *, top: int = 5) -> list[list[Answer]]:
        """Return the most probable labels of each example, most probable first.

        Where there are no labels, as of the region head, an answer is the place of a region.

        Args:
            outputs: of a task model: logits [B, Z] as they are, or what holds them.
        """
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs.logits
        logits = logits.detach().float().cpu()
        chances = logits.softmax(1) if self.exclusive else logits.sigmoid()
        names = self.labels or [str(place) for place in range(logits.shape[1])]
        best = torch.sort(chances, dim=1, descending=True, stable=True).indices[:, :top]
        return [
            [Answer(names[index], float(row[index])) for index in indices]
            for row, indices in zip(chances, best.tolist(), strict=True)
        ]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], *args: Any, **kwargs: Any
    ) -> Self:
        """Open the processor of a checkpoint; its settings may be given instead of stored ones.

        Raises:
            OSError: there is none.
        """
        # transformers would hand them to the tokenizer too, which would keep and store them.
        own = {name: kwargs.pop(name) for name in (*STORED, *NOT_STORED) if name in kwargs}
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        for name, value in own.items():
            setattr(processor, name, value)
        return processor

    @property
    def model_input_names(self) -> list[str]:
        """The names of the tensors that a call returns."""
        return list(PaddedInputs.__annotations__)

    def to_dict(self) -> dict[str, Any]:
        """Return what processor_config.json holds."""
        values = {name: getattr(self, name) for name in STORED}
        return {"processor_class": type(self).__name__, **values}

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read processor_config.json; a checkpoint of before it is told by its config.json."""
        name = pretrained_model_name_or_path
        stored, unused = super().get_processor_dict(name, **kwargs)
        if "labels" not in stored:
            hub = {option: kwargs[option] for option in HUB_OPTIONS if option in kwargs}
            stored = processor_values(SemVLPConfig.from_pretrained(name, **hub)) | stored
        return stored, unused


AutoProcessor.register(  # type: ignore[no-untyped-call]
    SemVLPConfig, SemVLPProcessor, exist_ok=True
)
