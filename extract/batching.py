"""The images that share a pass of a network: a function of the plan, never of where a run goes on.

A convolution over several images rounds each by the whole batch. So a pass is made of images that
stand near each other in one shard, whichever process writes it and whatever of it exists already.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
# Images among which those of equal shape are sought: among 128 photographs of COCO, a pass of at
# most 8 holds 2.6 on average, among 8 of them 1.3; their pixels are 0.2 GB at 600 x 800.
_WINDOW = 128


def windows(images: Sequence[T], *, per_shard: int, images_per_pass: int) -> Iterator[Sequence[T]]:
    """Yield the images of a plan in runs that share no pass, none of which is in two shards.

    An image that has a pass of its own needs no neighbours, and is a run of its own.
    """
    size = _WINDOW if images_per_pass > 1 else 1
    for first in range(0, len(images), per_shard):
        shard = images[first : first + per_shard]
        for start in range(0, len(shard), size):
            yield shard[start : start + size]


def passes(images: Iterable[T], shape: Callable[[T], Hashable], most: int) -> Iterator[list[T]]:
    """Yield images of equal shape together, as soon as their pass is full, the rest at the end."""
    waiting: dict[Hashable, list[T]] = {}
    for image in images:
        alike = waiting.setdefault(shape(image), [])
        alike.append(image)
        if len(alike) == most:
            yield waiting.pop(shape(image))
    yield from waiting.values()
