"""Settings of the pre-training objectives, and of what is hidden for them."""

from dataclasses import dataclass
from typing import Literal

from semvlp.train.bounds import at_least, between

TokenUnit = Literal["piece", "word"]
MaskedSides = Literal["both", "one"]
Negatives = Literal["text", "batch_text", "batch_image", "hard_text", "hard_image"]
FeatureLoss = Literal["smooth_l1", "mse"]
ClassLoss = Literal["cross_entropy", "kl"]
ClassesOn = Literal["masked", "all"]

OBJECTIVES = ("mlm", "features", "objects", "attributes", "matching", "answers")
"""Names of the pre-training objectives, as in `objectives.NAME` and `loss_NAME`."""
REGION_SHARES = ("region_zeroed", "region_random")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectivesConfig:
    """Weights and rates of the pre-training objectives; weight 0 switches one off."""

    mlm: float = 1.0
    """Masked language modelling."""
    features: float = 1.0
    """Regression of the features of masked regions."""
    objects: float = 1.0
    """Object class of masked regions, as the detector says."""
    attributes: float = 1.0
    """Attribute of masked regions, as the detector says."""
    matching: float = 1.0
    """Image-text matching on captions."""
    answers: float = 1.0
    """Image question answering on matched questions, soft cross-entropy."""
    token_rate: float = 0.15
    """Chance of a word piece to be masked; at least one of each text is."""
    token_unit: TokenUnit = "piece"
    """What is masked as a whole: a word `piece`, or a `word` with all its pieces."""
    region_rate: float = 0.15
    """Chance of a region to be masked; at least one is."""
    region_zeroed: float = 1.0
    """Share of the masked regions whose features become zeros (UNITER: all)."""
    region_random: float = 0.0
    """Share whose features become those of any region of the batch (LXMERT 0.1, with 0.8 zeroed);
    what is left stays as it is, and is predicted too."""
    masked_sides: MaskedSides = "both"
    """Mask text and regions of `both` sides of a pair, or of `one` side, drawn for each pair (as
    UNITER's conditional masking)."""
    overlap: float = 0.5
    """Regions whose IoU with a masked one exceeds this are masked too; 1.0 switches it off."""
    mismatch_rate: float = 0.5
    """Chance of a caption's pair to be made a mismatch."""
    negatives: Negatives = "text"
    """What makes a mismatch. `text`: a caption of any other image of the data. `batch_text` and
    `batch_image`: a caption, or the regions, of another image of the same batch. `hard_text` and
    `hard_image`: of the one whose detected objects are most alike."""
    on_mismatched: bool = False
    """Predict what is hidden on mismatched pairs too (LXMERT does, VOLTA does not); as much is
    hidden either way, or the masks would tell matches from mismatches."""
    on_questions: bool = True
    """Hide and predict on questions too, as LXMERT does; what is hidden cannot be counted."""
    feature_loss: FeatureLoss = "smooth_l1"
    """Distance of predicted from true features (LXMERT `smooth_l1`, UNITER `mse`)."""
    class_loss: ClassLoss = "cross_entropy"
    """Objects and attributes: `cross_entropy` weighted by the detector's confidence, or `kl`
    against the distribution that this confidence stands for."""
    classes_on: ClassesOn = "masked"
    """Predict objects and attributes of the `masked` regions, or of `all` (LXMERT's code)."""

    def __post_init__(self) -> None:
        for name in OBJECTIVES:
            at_least(name, getattr(self, name), 0)
        for name in ("token_rate", "region_rate", "overlap", "mismatch_rate", *REGION_SHARES):
            between(name, getattr(self, name), 0, 1)
        if self.region_zeroed + self.region_random > 1:
            raise ValueError(
                "region_zeroed and region_random must be at most 1 together, got "
                f"{self.region_zeroed} and {self.region_random}"
            )
        if not any(self.weights().values()):
            raise ValueError("at least one objective must have a weight above 0")

    def weights(self) -> dict[str, float]:
        """Weight of each objective by name."""
        return {name: getattr(self, name) for name in OBJECTIVES}
