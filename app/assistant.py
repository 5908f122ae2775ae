"""A finished checkpoint as somebody uses it: photographs and texts in, answers out.

N pairs of a text and a photograph, C labels, T tokens, R regions. Boxes are xyxy in pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semvlp.app.eyes import Seeing, Seen
from semvlp.app.reply import Answer, Region, Reply, attention
from semvlp.errors import ConfigError, InputError
from semvlp.eval.lookup import pair_regions
from semvlp.eval.network import Network, finite, open_network
from semvlp.eval.pages.between import Between, mean_of
from semvlp.eval.predict import chances, passes_of
from semvlp.eval.task import Scores
from semvlp.eval.tasks import nlvr, snli_ve
from semvlp.eval.tasks.base import mean_probability
from semvlp.eval.tasks.retrieval import LABELS as MATCHING
from semvlp.eval.tasks.table import load_task
from semvlp.model.hub import checkpoint_folder
from semvlp.model.tokenizer import tell_unknown
from semvlp.names import EvalMode, TaskName
from semvlp.shards.record import Regions

BATCH = 64
TRUE = "true"
MAX_TEXT = 10_000
"""Longer texts than this many characters are refused: of any text only its beginning is read."""


class Assistant(Seeing):
    """A checkpoint with its detector. `semvlp.load` makes one.

    Which of the methods it has follows from the task of the checkpoint; another one is a
    ConfigError that says so.
    """

    def __init__(
        self,
        network: Network,
        *,
        checkpoint: Path,
        mode: EvalMode,
        detector: str | None,
        device: str,
        urls: bool = False,
    ) -> None:
        self.network, self.checkpoint, self.mode = network, checkpoint, mode
        self.region_profile = network.model.config.region_profile
        self.detector, self.device, self.urls = detector, device, urls

    @property
    def task(self) -> str:
        """The task that the checkpoint was fine-tuned on, as its labels tell where it does not."""
        config = self.network.model.config
        if config.task is not None:
            return config.task
        if config.task_head == "pair":
            return "nlvr2"
        if config.task_head == "match":
            return "retrieval"
        if config.task_head == "region":
            return "refcoco"
        own = {nlvr.LABELS: "nlvr", snli_ve.LABELS: "snli-ve"}
        return next(
            (name for labels, name in own.items() if set(labels) == set(self.labels)), "vqa"
        )

    @property
    def labels(self) -> list[str]:
        """The C labels that it chooses from."""
        return self.network.labels

    @property
    def photos_per_text(self) -> int:
        """The number of photographs that go with a text: 2 where the task takes pairs."""
        return 1 + (self.network.model.config.task_head == "pair")

    def reply(
        self, photos: Sequence[Seen], text: str, *, top: int = 5, mode: EvalMode | None = None
    ) -> Reply:
        """Return the labels of the checkpoint for one text, whatever its task.

        Args:
            photos: one, or the left and the right one where the task takes pairs.
            mode: another one than the assistant's.

        Raises:
            ConfigError: the detector of the checkpoint cannot be found, or it has no labels.
            InputError: a photograph that cannot be read, too many or too few of them, or an empty
                or endless text.
        """
        if self.task == "refcoco":
            raise ConfigError("a checkpoint of refcoco has no labels; `find` gives its regions")
        wanted, mode = self.photos_per_text, mode or self.mode
        if len(photos) != wanted:
            raise InputError(
                f"the task {self.task} takes {wanted} photograph{'s'[: wanted > 1]} with a text, "
                f"got {len(photos)}"
            )
        tell_unknown(self.network.tokenizer, [checked(text)], repr(text))
        seen = tuple(map(self.regions, photos))
        (row,) = self._probabilities(seen, [text] * len(seen), mode)
        best = np.argsort(-row, kind="stable")[:top]
        return Reply(
            text=text,
            answers=tuple(Answer(self.labels[index], float(row[index])) for index in best),
            mode=mode,
            regions=seen,
            network=self.network,
        )

    def ask(
        self, photo: Seen | Sequence[Seen], question: str | Sequence[str], *, top: int = 5
    ) -> Reply | list[Reply]:
        """Answer a question about a photograph, or several of either, each with each.

        Returns:
            One reply, or a list where a list was given: all questions to the first photograph come
            first.

        Raises:
            ConfigError: the checkpoint does not answer questions.
            InputError: a photograph that cannot be read, or an empty or endless text.
        """
        self._check("ask", "vqa", "gqa", "table")
        several = isinstance(photo, list | tuple) or not isinstance(question, str)
        replies = [
            self.reply((seen,), text, top=top)
            for seen in map(self.regions, _listed(photo))
            for text in _listed(question)
        ]
        return replies if several else replies[0]

    def true_of(self, photos: Seen | tuple[Seen, Seen], statement: str) -> float:
        """Return the probability, 0..1, that a statement is true of a photograph, or of two.

        Raises: as `ask`; two photographs are for NLVR2, one for NLVR.
        """
        self._check("true_of", "nlvr", "nlvr2")
        answers = self.reply(_listed(photos), statement, top=len(self.labels)).answers
        return next(each.probability for each in answers if each.answer.lower() == TRUE)

    def entails(self, photo: Seen, hypothesis: str) -> Reply:
        """Tell whether a photograph entails a hypothesis, contradicts it, or says nothing of it.

        Raises: as `ask`.
        """
        self._check("entails", "snli-ve")
        return self.reply((photo,), hypothesis, top=len(self.labels))

    def match(
        self, photo: Seen, texts: Sequence[str], *, mode: EvalMode | None = None
    ) -> list[float]:
        """Return the probability, 0..1, that each text and a photograph belong together.

        Raises: as `ask`.
        """
        self._check("match", "retrieval")
        seen = self.regions(photo)
        index = self.labels.index(MATCHING[1])
        rows = self._probabilities(
            [seen] * len(texts), list(map(checked, texts)), mode or self.mode
        )
        return [float(row[index]) for row in rows]

    def find(self, photo: Seen, expression: str, *, top: int = 5) -> list[Region]:
        """Return the regions of a photograph that an expression may speak of, likeliest first.

        Raises: as `ask`.
        """
        self._check("find", "refcoco")
        seen = self.regions(photo)
        (row,) = self._probabilities([seen], [checked(expression)], self.mode)
        best = np.argsort(-row, kind="stable")[:top]
        return [Region(tuple(seen.boxes[i].tolist()), float(row[i])) for i in best]

    def explain(self, photo: Seen, text: str) -> Between:
        """Return what the words of a text and the regions of a photograph attend to.

        The regions are those of `regions(photo)`, the words the word pieces of the tokenizer.
        """
        (ids,) = self.network.encode([checked(text)])
        regions = pair_regions(self.regions(photo), self.network.limits.max_regions)
        return mean_of(attention(self.network, ids, regions, self.mode))

    def _check(self, method: str, *tasks: str) -> None:
        if self.task not in tasks:
            raise ConfigError(
                f"{method} needs a checkpoint fine-tuned on {' or '.join(tasks)}, but this one "
                f"was fine-tuned on {self.task}"
            )

    def _probabilities(
        self, seen: Sequence[Regions], texts: Sequence[str], mode: EvalMode
    ) -> Scores:
        """Compute the probabilities [N, C] of pairs, mean over the passes of `mode`."""
        network, task = self.network, load_task(self.task)
        ids = network.encode(texts)
        pairs = [pair_regions(regions, network.limits.max_regions) for regions in seen]
        batches = [slice(start, start + BATCH) for start in range(0, len(ids), BATCH)]
        rows = []
        with network.inference():
            for one in passes_of(mode):
                logits = torch.cat(
                    [network.logits(ids[part], pairs[part], one) for part in batches]
                )
                rows.append(finite(chances(network, task, logits), one))
        return mean_probability(rows)


def load(
    checkpoint: Path | str,
    *,
    mode: EvalMode = "both",
    device: str = "auto",
    detector: str | None = None,
    zero_shot: TaskName = "vqa",
    urls: bool = False,
) -> Assistant:
    """Open a checkpoint, ready to answer: a fine-tuned one, or one of pre-training.

    Args:
        checkpoint: a folder such as `runs/finetune-vqa/best`, or a name on the Hugging Face Hub.
        mode: which passes answer; `both` averages their probabilities.
        device: where network and detector run; `auto` takes a GPU where there is one.
        detector: the one that gave the regions, where it is not known by name: a directory that
            `semvlp detector train` wrote, or a config.
        zero_shot: the task that a checkpoint of pre-training answers with the head that it has
            learned it by: `vqa` with its answers, or `retrieval` with its matching head.
        urls: whether a photograph may be an address, `https://...`, that is then fetched.

    Raises:
        ConfigError: no such device.
        InputError: no such checkpoint, a damaged one, or one that answers nothing.
    """
    folder = checkpoint_folder(checkpoint, called="the checkpoint")
    task = load_task(zero_shot)
    network = open_network(folder, device=device, batch_size=BATCH, zero_shot=task)
    return Assistant(
        network, checkpoint=folder, mode=mode, detector=detector, device=device, urls=urls
    )


def checked(text: str) -> str:
    """Return a text as it is.

    Raises:
        InputError: it is empty or endless.
    """
    if not text.strip():
        raise InputError(f"a text must have words, got {text[:20]!r}")
    if len(text) > MAX_TEXT:
        raise InputError(f"a text must have at most {MAX_TEXT} characters, got {len(text)}")
    return text


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
