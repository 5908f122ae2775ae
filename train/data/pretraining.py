"""A step's images become micro-batches with something hidden, and the targets of all objectives.

What is hidden is marked in `region_mask`, and the network does not see its features. Nobody here
does: features are named by their rows in the step, so that whoever holds them gathers them once.

N pairs, T text tokens, R regions, M masked tokens, K regions whose classes are asked for, J masked
regions, Q questions, Z answers; all of one micro-batch. Everything runs in NumPy on the CPU.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semvlp.model.packing import PackedBatch, pack, row_indices
from semvlp.shards.batch import Batch, Columns
from semvlp.shards.codec import decode_entry, texts_of
from semvlp.shards.record import Texts
from semvlp.shards.stream.order import Generators
from semvlp.train.config import PretrainConfig
from semvlp.train.data.masking import (
    MaskedRegions,
    MaskedTokens,
    hide_regions,
    mask_regions,
    mask_tokens,
)
from semvlp.train.data.pairs import Match, Pair, StepImage, pairs_of
from semvlp.train.data.texts import TextCache, masking_vocabulary
from semvlp.train.objectives import IGNORED, Targets
from semvlp.train.step import MicroBatch, split

MATCH_CLASS: dict[Match, int] = {"match": 1, "mismatch": 0, "none": IGNORED}
NO_IMAGE = StepImage(
    number=0,
    position=0,
    image_id="",
    width=1,
    height=1,
    texts=Texts(),
    negative=Texts(),
    start=0,
    object_ids=np.zeros(0, np.int16),
)
"""What a rank computes where the others have something to learn from; it predicts nothing."""


class IndexedBatch(NamedTuple):
    """A micro-batch whose features are told by their rows in the step's packed features."""

    micro_batch: MicroBatch
    """Its features, [R, 0] and [J, 0], have no columns yet."""
    rows: Tensor
    """[R] int64, the row of the step whose features each region of the batch shows."""
    target_rows: Tensor
    """[J] int64, the rows of the step whose features are asked for."""


class PretrainingCollator:
    """Makes the micro-batches of pre-training; the same step always gives the same ones."""

    def __init__(
        self, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, answers: Sequence[str]
    ) -> None:
        self._config = config
        self._texts = TextCache(tokenizer, config.data.max_text_length)
        self._vocabulary = masking_vocabulary(tokenizer)
        self._answers = {answer: index for index, answer in enumerate(answers)}
        self._masks, self._others = Generators(), Generators()

    def __call__(self, step: Batch) -> list[IndexedBatch]:
        """Make pairs of a rank's share of a step, split as the settings say.

        Args:
            step: its column `features` is not read and may be missing.
        """
        images = step_images(step) or [NO_IMAGE]
        pairs = [self._pairs(image, images) for image in images]
        rows = [self._count_rows(of_image, images) for of_image in pairs]
        first, *others = [
            self._micro_batch(
                [pair for of_image in pairs[run] for pair in of_image], images, step.columns
            )
            for run in split(rows, self._config.train)
        ]
        told = replace(first.micro_batch, damaged=tuple(step.damaged))
        return [first._replace(micro_batch=told), *others]

    def _pairs(self, image: StepImage, images: Sequence[StepImage]) -> list[Pair]:
        return pairs_of(
            image,
            count=self._config.data.texts_per_image,
            negative_rate=self._config.objectives.negative_rate,
            seed=self._config.train.seed,
            negatives=self._config.objectives.negatives,
            step=images,
            random_of=self._others,
        )

    def _count_rows(self, pairs: Sequence[Pair], images: Sequence[StepImage]) -> int:
        """Count the tokens and regions of some pairs."""
        tokens = sum(map(len, self._texts([pair.text for pair in pairs])))
        return tokens + sum(self._num_regions(images[pair.image]) for pair in pairs)

    def _num_regions(self, image: StepImage) -> int:
        return min(len(image.object_ids), self._config.data.max_regions)

    def _micro_batch(
        self, pairs: Sequence[Pair], images: Sequence[StepImage], columns: Columns
    ) -> IndexedBatch:
        """Mask and pack pairs, with their targets."""
        shown = [images[pair.image] for pair in pairs]
        starts = torch.tensor([image.start for image in shown])
        lengths = torch.tensor([self._num_regions(image) for image in shown])
        rows = row_indices(starts, lengths)
        boxes = np.split(columns["boxes"][rows.numpy()], lengths.cumsum(0)[:-1].numpy())
        ids = self._texts([pair.text for pair in pairs])
        hidden = [self._hide(*triple) for triple in zip(pairs, ids, boxes, strict=True)]
        regions = _joined([regions for _, regions in hidden])
        batch = pack(
            [tokens.input_ids.tolist() for tokens, _ in hidden],
            [
                (np.empty((len(own), 0), np.float16), own, image.width, image.height)
                for own, image in zip(boxes, shown, strict=True)
            ],
        ).replace(region_mask=torch.from_numpy(regions.zeroed))
        targets, masked = self._targets(
            batch, pairs, ids, [tokens for tokens, _ in hidden], regions, rows, columns
        )
        micro_batch = MicroBatch(
            batch=batch,
            targets=targets,
            counts=targets.counts(),
            image_ids=tuple(dict.fromkeys(image.image_id for image in shown)),
        )
        return IndexedBatch(micro_batch, _replaced(rows, regions), rows[masked])

    def _hide(
        self, pair: Pair, ids: NDArray[np.int64], boxes: NDArray[np.float32]
    ) -> tuple[MaskedTokens, MaskedRegions]:
        """Choose what of a pair, its text `ids` [T] and its regions `boxes` [R, 4], is hidden."""
        config, seed = self._config.objectives, self._config.train.seed
        no_tokens = MaskedTokens(ids, np.zeros(0, np.int64))
        no_regions = np.zeros(len(boxes), np.bool_)
        random = self._masks(seed, pair.position, f"mask {pair.number}")
        if pair.answers and not config.on_questions:
            return no_tokens, hide_regions(no_regions, 0, 0, random)
        tokens = mask_tokens(
            ids, config.token_rate, self._vocabulary, random, unit=config.token_unit
        )
        chosen = mask_regions(boxes, config.region_rate, config.joint_mask_iou, random)
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
        pairs: Sequence[Pair],
        ids: Sequence[NDArray[np.int64]],
        tokens: Sequence[MaskedTokens],
        regions: MaskedRegions,
        rows: Tensor,
        columns: Columns,
    ) -> tuple[Targets, Tensor]:
        """Return what is asked for, and the regions [R] whose features are, True = asked for.

        Nothing hidden is asked for in a mismatch, unless `on_mismatched` says so.
        """
        config = self._config.objectives
        predicted = [pair.match != "mismatch" or config.on_mismatched for pair in pairs]
        positions = _token_positions(tokens, predicted)
        in_predicted = torch.tensor(predicted).repeat_interleave(batch.region_lengths)
        masked = torch.from_numpy(regions.chosen) & in_predicted
        asked = in_predicted if config.classes_on == "all" else masked
        labels = {
            name: torch.from_numpy(columns[name])[rows[asked]]
            for name in ("object_ids", "object_conf", "attribute_ids", "attribute_conf")
        }
        question_pairs, scores = self._answer_scores(pairs)
        targets = Targets(
            token_positions=torch.from_numpy(positions),
            token_ids=torch.from_numpy(np.concatenate(ids)[positions]),
            region_positions=asked.nonzero().squeeze(1),
            masked_index=masked[asked].nonzero().squeeze(1),
            region_features=batch.region_features[masked],
            object_ids=labels["object_ids"].long(),
            object_conf=labels["object_conf"].float(),
            attribute_ids=labels["attribute_ids"].long(),
            attribute_conf=labels["attribute_conf"].float(),
            matched=torch.tensor([MATCH_CLASS[pair.match] for pair in pairs]),
            question_pairs=question_pairs,
            answer_scores=scores,
        )
        return targets, masked

    def _answer_scores(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Return the pairs [Q] that ask something with a known answer, and the scores [Q, Z]."""
        known = [
            {
                self._answers[answer]: score
                for answer, score in pair.answers.items()
                if answer in self._answers and score > 0
            }
            for pair in pairs
        ]
        asking = [number for number, answers in enumerate(known) if answers]
        scores = torch.zeros(len(asking), len(self._answers))
        for line, number in enumerate(asking):
            scores[line, list(known[number])] = torch.tensor(list(known[number].values()))
        return torch.tensor(asking, dtype=torch.int64), scores


def step_images(step: Batch) -> list[StepImage]:
    """Decode what is known of each image of a step; its regions stay where they are."""
    images = []
    starts = step.starts.tolist()
    for number, header in enumerate(step.headers):
        facts, start = decode_entry(header.sample), starts[number]
        images.append(
            StepImage(
                number=number,
                position=header.position,
                image_id=facts["image_id"],
                width=facts["width"],
                height=facts["height"],
                texts=texts_of(facts),
                negative=Texts()
                if header.negative is None
                else texts_of(decode_entry(header.negative)),
                start=start,
                object_ids=step.columns["object_ids"][start : starts[number + 1]],
            )
        )
    return images


def _joined(images: Sequence[MaskedRegions]) -> MaskedRegions:
    """Lay what happens to the regions of several images one after another."""
    return MaskedRegions(
        *(
            np.concatenate([getattr(image, field.name) for image in images])
            for field in fields(MaskedRegions)
        )
    )


def _replaced(rows: Tensor, regions: MaskedRegions) -> Tensor:
    """Return rows [R] with those of other regions where `regions` says so."""
    places = np.flatnonzero(regions.replaced)
    others = (regions.replacement[places] * len(rows)).astype(np.int64)
    return rows.index_copy(0, torch.from_numpy(places), rows[torch.from_numpy(others)])


def _token_positions(texts: Sequence[MaskedTokens], predicted: Sequence[bool]) -> NDArray[np.int64]:
    """Return the masked tokens [M] of the texts that are predicted, as positions in all texts."""
    starts = np.cumsum([0] + [len(text.input_ids) for text in texts[:-1]])
    return np.concatenate(
        [
            start + (text.positions if is_predicted else text.positions[:0])
            for start, text, is_predicted in zip(starts, texts, predicted, strict=True)
        ]
    )
