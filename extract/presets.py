"""Presets: the published rules by which the regions of an image are chosen. Pure, without torch.

P proposals.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from semvlp.errors import ConfigError
from semvlp.shapes import shapes
from semvlp.shards.record import MAX_REGIONS

# The rule is part of the profile, a hash of these names too: what version 0.1 extracted would be of
# another profile under new ones, and could not be gone on with. So they stay in what is stored.
_ON_DISK = {
    "nms_ious": "ious",
    "min_score_below_min_regions": "floor",
    "stored_class": "label",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A selection rule and its limits.

    Every rule orders the proposals, takes those of at least `confidence`, and then at least
    `min_regions` (all, where there are fewer proposals; see `min_score_below_min_regions`) and at
    most `max_regions` of the order.
    """

    suppress: Literal["per class", "once"] = "per class"
    """NMS for each object class on its own, or one NMS on the best class of each proposal."""
    boxes: Literal["proposals", "regressed"] = "proposals"
    """Boxes whose overlap counts."""
    nms_ious: tuple[float, ...] = (0.3,)
    """NMS thresholds, tried in turn until `min_regions` survive."""
    confidence: float = 0.2
    """A proposal counts when a class in which it survives has this probability."""
    min_score_below_min_regions: float | None = None
    """Score that proposals under `confidence` must exceed to fill up to `min_regions`; a suppressed
    proposal scores 0. None takes any, suppressed ones too."""
    stored_class: Literal["best", "survivor"] = "best"
    """Object class that is stored: the most probable, or the most probable it survives in,
    whose probability is what the regions are chosen by (0 where a region survives in none)."""
    min_regions: int
    max_regions: int

    def stored(self) -> dict[str, Any]:
        """Return the rule as plans and manifests hold it."""
        return {_ON_DISK.get(name, name): value for name, value in asdict(self).items()}


PRESETS: dict[str, Preset] = {
    # peteanderson80/bottom-up-attention tools/generate_tsv.py, "fixed" and "adaptive"
    "butd_36": Preset(min_regions=36, max_regions=36),
    "butd_10_100": Preset(min_regions=10, max_regions=100),
    # airsplay/py-bottom-up-attention demo/detectron2_mscoco_proposal_maxnms.py; with 1.0, which
    # suppresses nothing, appended: the original returns fewer regions, or those of another image
    "maxnms_36": Preset(
        suppress="once",
        boxes="regressed",
        nms_ious=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        confidence=0.0,
        min_regions=36,
        max_regions=36,
    ),
    # microsoft/scene_graph_benchmark maskrcnn_benchmark/modeling/roi_heads/box_head/inference.py,
    # filter_results_peter and filter_results_fast, with IGNORE_BOX_REGRESSION as published. Where
    # fewer than 10 survive, the first goes on to a rule that cannot give features; ours ends there
    "vinvl_nms1": Preset(
        stored_class="survivor",
        min_score_below_min_regions=0.0,
        min_regions=10,
        max_regions=100,
    ),
    "vinvl_nms2": Preset(
        suppress="once",
        nms_ious=(0.5,),
        min_score_below_min_regions=0.01 * 0.2,
        min_regions=10,
        max_regions=100,
    ),
    # ChenRocks/BUTD-UNITER-NLVR2 tools/generate_npz.py: store 100 with the confidence they are
    # chosen by, threshold later (extract/views.py)
    "top_100": Preset(stored_class="survivor", min_regions=100, max_regions=100),
}
DEFAULT = Preset(min_regions=36, max_regions=100)
"""Without a preset: the rule of bottom-up attention, with the limits of the caller."""


def resolve(
    preset: str | None, min_regions: int | None = None, max_regions: int | None = None
) -> Preset:
    """Return the rule of a preset (None: `DEFAULT`), with the given limits instead of its own.

    Raises:
        ConfigError: an unknown preset, or limits that are not 1 <= min <= max <= 100.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    rule = DEFAULT if preset is None else PRESETS[preset]
    low = rule.min_regions if min_regions is None else min_regions
    high = rule.max_regions if max_regions is None else max_regions
    if not 1 <= low <= high <= MAX_REGIONS:
        raise ConfigError(
            f"regions must satisfy 1 <= min <= max <= {MAX_REGIONS}, got min {low} and max {high}"
        )
    return replace(rule, min_regions=low, max_regions=high)


@shapes
def clamped(confident: Bool[NDArray[np.bool_], "P"], rule: Preset) -> int:
    """Return how many regions a rule takes of proposals of which `confident` [P] are sure."""
    return min(max(int(confident.sum()), rule.min_regions), rule.max_regions)
