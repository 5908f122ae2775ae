"""In which order examples are seen and how much each counts, where some classes are rare."""

from collections import Counter
from collections.abc import Hashable, Sequence

from semvlp.shards.stream.order import key, permute
from semvlp.train.config import Sampling


class Order:
    """An endless sequence of examples that follows from the seed and the position alone.

    `all` shows every example once an epoch. `balanced` shows every class equally often: in each
    round every class once, and of a class every example once before any again.
    """

    def __init__(self, classes: Sequence[Hashable], sampling: Sampling, seed: int) -> None:
        groups: dict[Hashable, list[int]] = {}
        for index, each in enumerate(classes):
            groups.setdefault(each if sampling == "balanced" else None, []).append(index)
        self._groups, self._seed = list(groups.values()), seed

    def __call__(self, position: int) -> int:
        """Return the index of the example at a position."""
        turn, place = divmod(position, len(self._groups))
        group = self._groups[self._shuffled(place, len(self._groups), turn)]
        epoch, index = divmod(turn, len(group))
        return group[self._shuffled(index, len(group), epoch)]

    def _shuffled(self, index: int, size: int, epoch: int) -> int:
        return permute(index, size, key(self._seed, epoch))


def balanced_weights(classes: Sequence[Hashable]) -> list[float]:
    """Return the weight of each example under which all classes count the same; their mean is 1."""
    counts = Counter(classes)
    return [len(classes) / (len(counts) * counts[each]) for each in classes]
