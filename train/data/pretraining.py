"""Visits of images become packed batches with something hidden, and the targets of all objectives.

What is hidden is marked in `region_mask`, and the network does not see its features.

N pairs, T text tokens, R regions, M masked tokens, K masked regions, F feature size, Q questions,
Z answers; all of one packed batch. Everything runs in NumPy on the CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.model.packing import PackedBatch, pack
from semvlp.shards.record import Regions
from semvlp.shards.stream.order import Generators
from semvlp.shards.stream.stream import Visit
from semvlp.train.config import PretrainConfig
from semvlp.train.data.masking import (
    MaskedRegions,
    MaskedTokens,
    hide_regions,
    mask_regions,
    mask_tokens,
)
from semvlp.train.data.pairs import Match, Pair, pairs_of
from semvlp.train.data.texts import TextCache, masking_vocabulary
from semvlp.train.objectives import IGNORED, Targets
from semvlp.train.step import MicroBatch, split

MATCH_CLASS: dict[Match, int] = {"match": 1, "mismatch": 0, "none": IGNORED}


class PretrainingCollator:
    """Makes the parts of pre-training steps; the same visits always give the same parts."""

    def __init__(
        self, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, answers: Sequence[str]
    ) -> None:
        self._config = config
        self._texts = TextCache(tokenizer, config.data.max_text_length)
        self._vocabulary = masking_vocabulary(tokenizer)
        self._answers = {answer: index for index, answer in enumerate(answers)}
        self._masks, self._others = Generators(), Generators()

    def parts(self, visits: Sequence[Visit]) -> list[MicroBatch]:
        """The pairs of a rank's share of a step, cut as the settings say."""
        pairs = [self._pairs(visit, visits) for visit in visits]
        rows = [self._rows(of_visit) for of_visit in pairs]
        return [
            self._part([pair for of_visit in pairs[run] for pair in of_visit])
            for run in split(rows, self._config.train)
        ]

    def _rows(self, pairs: Sequence[Pair]) -> int:
        """Tokens and regions of some pairs."""
        most = self._config.data.max_regions
        tokens = sum(map(len, self._texts([pair.text for pair in pairs])))
        return tokens + sum(min(len(pair.regions), most) for pair in pairs)

    def _part(self, pairs: Sequence[Pair]) -> MicroBatch:
        """Pairs masked and packed, with their targets."""
        ids = self._texts([pair.text for pair in pairs])
        # One image may serve several pairs; its regions are taken once.
        kept = {
            id(pair.regions): _top(pair.regions, self._config.data.max_regions) for pair in pairs
        }
        regions = [kept[id(pair.regions)] for pair in pairs]
        hidden = [self._hide(*triple) for triple in zip(pairs, ids, regions, strict=True)]
        tokens = [masked for masked, _ in hidden]
        told = [pair.match != "mismatch" or self._config.objectives.on_mismatched for pair in pairs]
        batch = pack(
            [masked.input_ids.tolist() for masked in tokens],
            [(found.features, found.boxes, found.width, found.height) for found in regions],
        )
        masked = _in_batch([found for _, found in hidden])
        targets = self._targets(batch, masked.chosen, told, pairs, ids, tokens, regions)
        _replace_features(batch.region_features, masked)
        return MicroBatch(
            batch=batch.replace(region_mask=torch.from_numpy(masked.zeroed)),
            targets=targets,
            counts=targets.counts(),
            image_ids=tuple(dict.fromkeys(pair.regions.image_id for pair in pairs)),
        )

    def _pairs(self, visit: Visit, visits: Sequence[Visit]) -> list[Pair]:
        return pairs_of(
            visit,
            count=self._config.data.texts_per_image,
            negative_rate=self._config.objectives.negative_rate,
            seed=self._config.train.seed,
            negatives=self._config.objectives.negatives,
            batch=visits,
            random_of=self._others,
        )

    def _hide(
        self, pair: Pair, ids: NDArray[np.int64], regions: Regions
    ) -> tuple[MaskedTokens, MaskedRegions]:
        """What of a pair is hidden."""
        config, seed = self._config.objectives, self._config.train.seed
        no_tokens = MaskedTokens(ids, np.zeros(0, np.int64))
        no_regions = np.zeros(len(regions), np.bool_)
        random = self._masks(seed, pair.position, f"mask {pair.number}")
        if pair.answers and not config.on_questions:
            return no_tokens, hide_regions(no_regions, 0, 0, random)
        tokens = mask_tokens(
            ids, config.token_rate, self._vocabulary, random, unit=config.token_unit
        )
        chosen = mask_regions(regions.boxes, config.region_rate, config.joint_mask_iou, random)
        if config.masked_sides == "one":
            if self._others(seed, pair.position, f"side {pair.number}").random() < 0.5:
                tokens = no_tokens
            else:
                chosen = no_regions
        shares = config.region_zeroed, config.region_random
        return tokens, hide_regions(chosen, *shares, random)

    def _targets(
        self,
        batch: PackedBatch,
        chosen: NDArray[np.bool_],
        told: Sequence[bool],
        pairs: Sequence[Pair],
        ids: Sequence[NDArray[np.int64]],
        tokens: Sequence[MaskedTokens],
        regions: Sequence[Regions],
    ) -> Targets:
        """What is asked for; nothing hidden of a pair that is not `told` is."""
        positions = _in_stream(
            [
                masked.positions if tell else masked.positions[:0]
                for masked, tell in zip(tokens, told, strict=True)
            ],
            ids,
        )
        tell = torch.tensor(told).repeat_interleave(batch.region_lengths)
        masked = torch.from_numpy(chosen) & tell
        asked = tell if self._config.objectives.classes_on == "all" else masked
        question_pairs, scores = self._answer_scores(pairs)
        return Targets(
            token_positions=torch.from_numpy(positions),
            token_ids=torch.from_numpy(np.concatenate(ids)[positions]),
            region_positions=asked.nonzero().squeeze(1),
            restored=masked[asked].nonzero().squeeze(1),
            region_features=batch.region_features[masked],
            object_ids=_gather(regions, "object_ids", asked).long(),
            object_conf=_gather(regions, "object_conf", asked).float(),
            attribute_ids=_gather(regions, "attribute_ids", asked).long(),
            attribute_conf=_gather(regions, "attribute_conf", asked).float(),
            matched=torch.tensor([MATCH_CLASS[pair.match] for pair in pairs]),
            question_pairs=question_pairs,
            answer_scores=scores,
        )

    def _answer_scores(self, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """The pairs [Q] that ask something with a known answer, and the scores [Q, Z]."""
        known = [(row, self._known(pair.answers)) for row, pair in enumerate(pairs)]
        asked = [(row, found) for row, found in known if found]
        scores = torch.zeros(len(asked), len(self._answers))
        for line, (_, found) in enumerate(asked):
            scores[line, list(found)] = torch.tensor(list(found.values()))
        return torch.tensor([row for row, _ in asked], dtype=torch.int64), scores

    def _known(self, answers: Mapping[str, float]) -> dict[int, float]:
        return {
            self._answers[answer]: score
            for answer, score in answers.items()
            if answer in self._answers and score > 0
        }


def _in_batch(images: Sequence[MaskedRegions]) -> MaskedRegions:
    """What happens to the regions of several images, one after another."""
    return MaskedRegions(
        *(
            np.concatenate([getattr(found, field.name) for found in images])
            for field in fields(MaskedRegions)
        )
    )


def _replace_features(features: torch.Tensor, masked: MaskedRegions) -> None:
    """Give regions [R, F] the features of others where `masked` says so, in place."""
    rows = np.flatnonzero(masked.replaced)
    if len(rows):
        features[rows] = features[(masked.by[rows] * len(features)).astype(np.int64)]


def _top(regions: Regions, count: int) -> Regions:
    return regions if len(regions) <= count else regions.top(count)


def _in_stream(
    positions: Sequence[NDArray[np.int64]], texts: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Positions in each text as positions in all texts, one after another."""
    starts = np.cumsum([0] + [len(text) for text in texts])
    return np.concatenate([start + own for start, own in zip(starts, positions, strict=False)])


def _gather(regions: Sequence[Regions], name: str, mask: torch.Tensor) -> torch.Tensor:
    """One value of every masked region [K]."""
    return torch.from_numpy(np.concatenate([getattr(found, name) for found in regions]))[mask]
