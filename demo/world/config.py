"""The make-up of a drawn world."""

from dataclasses import dataclass

from semvlp.demo.world.scene import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """The size of a world for each scene asked for, and how many texts it has."""

    towers: float = 0.3
    """Share of scenes with towers in three boxes."""
    scatter: float = 0.3
    """Share of scenes with items lying in three boxes."""
    square: float = 0.4
    """Share of scenes with one wide field, more shapes and more colours."""
    most_items: int = 7
    """Most items of a square scene."""
    variety: int = 8
    """How many colours, and how many shapes, the items of square scenes have: the first ones."""
    captions: int = 2
    """Captions of each picture."""
    questions: int = 4
    """Questions about each scene."""
    statements: int = 6
    """True and false statements about each scene."""
    alike_statements: int = 0
    """Further statements about each scene that tell it from one with the same things in other
    places, as those of NLVR v1 do: what is there, and how much of it, does not help."""
    hypotheses: int = 3
    """Hypotheses about each scene with or without a curtain."""
    pair_statements: int = 3
    """Statements about each pair of pictures."""
    expressions: int = 2
    """Referring expressions about each square scene with several things, as those of RefCOCO."""
    covered: float = 0.25
    """Further square scenes for each scene, half of them with a curtain, for hypotheses."""
    pairs: float = 0.5
    """Pairs of two scenes for each scene; with 0.5 every scene is in one, with 1 in two."""
    nlvr: float = 0.04
    """Further scenes for each scene, six pictures each, as examples in the form of NLVR v1."""

    def __post_init__(self) -> None:
        shares = self.towers, self.scatter, self.square
        if min(shares) < 0 or not sum(shares):
            raise ValueError(f"the shares of the kinds must be positive in sum, got {shares}")
        if self.most_items < 1:
            raise ValueError(f"most_items must be at least 1, got {self.most_items}")
        if self.variety < 2:
            raise ValueError(f"variety must be at least 2, got {self.variety}")

    def share(self, kind: Kind) -> float:
        """Return the share of a kind among all scenes, 0..1."""
        return float(getattr(self, kind)) / (self.towers + self.scatter + self.square)


SQUARE_SCENES = WorldConfig(
    towers=0,
    scatter=0,
    square=1,
    covered=0,
    nlvr=0,
    pairs=0,
    captions=1,
    questions=0,
    statements=0,
)
"""Square scenes alone, to which an experiment adds the texts it is about."""
