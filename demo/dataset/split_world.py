"""One split of a drawn world before anything is written: pictures and texts about them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from semvlp.demo.dataset.nlvr_scenes import ORDERS
from semvlp.demo.world.scene import Scene


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene with the name of its file, without extension, and a number where it needs one."""

    image_id: str
    scene: Scene
    number: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """A text about a picture and its answer."""

    picture: Picture
    text: str
    answer: str
    topic: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An expression that speaks of one item of a picture, by its place among the items."""

    picture: Picture
    item: int
    text: str


@dataclass(frozen=True, slots=True)
class PairFact:
    """A statement about two pictures; `identifier` is `split-set-pair-sentence`."""

    identifier: str
    left: Picture
    right: Picture
    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class NlvrFact:
    """A statement about a scene that is shown in six pictures; `identifier` is `n-m`."""

    identifier: str
    scene: Scene
    text: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitWorld:
    """One split: its pictures and the texts about them."""

    split: str
    scenes: list[Picture]
    questions: list[Fact]
    statements: list[Fact]
    covered: list[Picture] = field(default_factory=list)
    hypotheses: list[Fact] = field(default_factory=list)
    pairs: list[PairFact] = field(default_factory=list)
    nlvr: list[NlvrFact] = field(default_factory=list)
    expressions: list[Reference] = field(default_factory=list)
    captions: dict[str, list[str]] = field(default_factory=dict)
    """Captions of every picture that tell all, by image id."""
    remarks: dict[str, str] = field(default_factory=dict)
    """One true thing about every picture, by image id."""

    @property
    def pictures(self) -> Iterator[Picture]:
        """Yield every picture once."""
        yield from self.scenes
        yield from self.covered
        yield from (picture for fact in self.nlvr for picture in nlvr_pictures(self.split, fact))


def nlvr_pictures(split: str, fact: NlvrFact) -> list[Picture]:
    """Return the six pictures of an example, named as NLVR v1 names them."""
    return [
        Picture(f"{split}-{fact.identifier}-{k}", fact.scene.permuted(order))
        for k, order in enumerate(ORDERS)
    ]
