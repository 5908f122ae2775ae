"""What is told of the examples of a fine-tuning before it begins."""

import logging
from collections.abc import Sequence
from pathlib import Path

from semvlp.errors import InputError
from semvlp.eval.task import Example, Task

log = logging.getLogger(__name__)


def tell_answerable(answerable: int, examples: int, annotations: Sequence[Path]) -> None:
    """Tell how many examples teach something.

    Raises:
        InputError: none does.
    """
    told = f"{answerable} of {examples} examples have a right answer among the labels"
    if not answerable:
        names = ", ".join(map(str, annotations))
        raise InputError(
            f"{names}: {told}, so nothing can be learned; the answers must be spelled as the "
            "labels of the checkpoint are, or start from a pre-training checkpoint"
        )
    log.log(logging.INFO if answerable == examples else logging.WARNING, told)


def tell_unanswerable(
    task: Task, examples: Sequence[Example], labels: Sequence[str], paths: Sequence[Path]
) -> None:
    """Count the examples that nothing of the labels answers; none of them can come right."""
    spelled = {task.spelling(label) for label in labels}
    unknown = {a for e in examples for a in e.target if task.spelling(a) not in spelled}
    lost = sum(unknown.issuperset(example.target) for example in examples)
    if lost:
        log.warning(
            "%s: %d of %d examples have no right answer among the labels of training (%s)",
            *(", ".join(map(str, paths)), lost, len(examples), ", ".join(sorted(unknown)[:5])),
        )


def tell_remembered(trained: Sequence[Example], examples: Sequence[Example]) -> None:
    """Warn of examples to validate on that are trained on as well."""
    known = {(example.text, example.images) for example in trained}
    again = sum((example.text, example.images) in known for example in examples)
    if again:
        log.warning(
            "%d of the %d examples of --valid are trained on as well: the score tells how well "
            "they are remembered; give a split that is held out",
            *(again, len(examples)),
        )
