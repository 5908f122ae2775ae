"""Composing a whole world from a seed: random scenes, their names, and all texts about them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from semvlp.demo.dataset.split_world import (
    Fact,
    NlvrFact,
    PairFact,
    Picture,
    Reference,
    SplitWorld,
)
from semvlp.demo.language.captions import LABELS, caption, hypothesis, remark
from semvlp.demo.language.claims import FALSE, TRUE, Asked, Claim, spread
from semvlp.demo.language.expressions import expression
from semvlp.demo.language.pairs import Pair, pair_statement
from semvlp.demo.language.questions import question
from semvlp.demo.language.scatter_statements import scatter_statement
from semvlp.demo.language.square_statements import square_statement
from semvlp.demo.language.tower_statements import tower_statement
from semvlp.demo.world.config import WorldConfig
from semvlp.demo.world.random_scenes import FAMILY, Thing, draw_lots, thing_of
from semvlp.demo.world.scene import KINDS, Kind, Scene

_STATEMENTS: Mapping[Kind, Callable[[Random], Claim[Scene]]] = {
    "towers": tower_statement,
    "scatter": scatter_statement,
    "square": square_statement,
}
# Numbers of pictures in files that want numbers: a million for each split, never below a million,
# so that no number is also the end of another picture's name.
_NUMBERS = 1_000_000
_PAIRS_OF_A_SET = 8
_TRIES = 2000
# Most claims are true of all scenes with the same things, or of none.
_TRIES_AMONG_ALIKE = 12


def compose(
    scenes: Mapping[str, int], *, seed: int, config: WorldConfig | None = None
) -> Iterator[SplitWorld]:
    """Yield the splits of a world with `scenes[split]` scenes each; no scene is in two places.

    Besides the scenes there are further ones for hypotheses and NLVR v1 examples, as many for each
    scene as `config` says. Pairs are of the scenes themselves.
    """
    config = config or WorldConfig()
    lots = _all_lots(scenes, seed, config)
    for index, split in enumerate(scenes):
        mine = {name: lot[split] for name, lot in lots.items()}
        world = _split_world(split, index, mine, Random(f"{seed}-{split}"), config)
        # By lots of their own, so that all other texts are as they were without them.
        lots_of_references = Random(f"{seed}-{split}-expressions")
        yield replace(
            world, expressions=list(_references(world.scenes, lots_of_references, config))
        )


def describe(
    split: str, pictures: Sequence[Picture], *, seed: int, config: WorldConfig
) -> SplitWorld:
    """Write captions, questions and statements about pictures that were drawn by somebody else."""
    rng = Random(f"{seed}-{split}")
    world = _asked_world(split, list(pictures), rng, config)
    _tell(world, rng, config)
    return world


Lots = dict[str, dict[str, list[Scene]]]


def _all_lots(scenes: Mapping[str, int], seed: int, config: WorldConfig) -> Lots:
    """Draw scenes by use and split: `towers`, `towers nlvr`, ..., `covered`."""
    seen: set[str] = set()
    lots: Lots = {}
    for name, (kind, of_scenes) in _uses(config).items():
        counts = {split: of_scenes(total) for split, total in scenes.items()}
        lots[name] = draw_lots(
            kind,
            counts,
            seed=f"{seed}-{name}",
            seen=seen,
            most=config.most_items,
            variety=config.variety,
            covered=name == "covered",
        )
    return lots


def _uses(config: WorldConfig) -> dict[str, tuple[Kind, Callable[[int], int]]]:
    """List the uses of scenes, with their kind and how many there are for a number of scenes."""
    uses: dict[str, tuple[Kind, Callable[[int], int]]] = {}
    for kind in KINDS:
        share = config.share(kind)
        uses[kind] = kind, partial(_rounded, share, 1)
        if kind != "square":
            uses[f"{kind} nlvr"] = kind, partial(_rounded, share * config.nlvr, FAMILY)
    uses["covered"] = "square", partial(_rounded, config.covered, 1)
    return uses


def _rounded(share: float, step: int, scenes: int) -> int:
    """Round a share of the scenes up to a multiple of `step`."""
    return step * math.ceil(round(share * scenes / step, 6))


def _split_world(
    split: str, index: int, lots: Mapping[str, list[Scene]], rng: Random, config: WorldConfig
) -> SplitWorld:
    start = _NUMBERS * (index + 1)
    plain = [scene for kind in KINDS for scene in lots[kind]]
    scenes = _numbered(split, plain, start)
    covered = _numbered(split, lots["covered"], start + len(scenes))
    asked = spread(hypothesis, lots["covered"], each=config.hypotheses, rng=rng, answers=LABELS)
    world = _asked_world(split, scenes, rng, config)
    world = replace(
        world,
        covered=covered,
        hypotheses=facts_of(covered, asked),
        pairs=list(_pair_facts(split, scenes, rng, config)),
        nlvr=list(_nlvr_facts(lots, rng)),
    )
    _tell(world, rng, config)
    return world


def _asked_world(split: str, scenes: list[Picture], rng: Random, config: WorldConfig) -> SplitWorld:
    return SplitWorld(
        split=split,
        scenes=scenes,
        questions=_asked_of(scenes, question, config.questions, rng),
        statements=_asked_of(scenes, _statement, config.statements, rng)
        + _asked_of_alike(scenes, _statement, config.alike_statements, rng),
    )


def _tell(world: SplitWorld, rng: Random, config: WorldConfig) -> None:
    """Write captions and a remark for every picture."""
    for picture in world.pictures:
        captions = (caption(picture.scene, rng) for _ in range(config.captions))
        world.captions[picture.image_id] = list(dict.fromkeys(captions))
        world.remarks[picture.image_id] = remark(picture.scene, rng)


def _numbered(split: str, scenes: Sequence[Scene], start: int) -> list[Picture]:
    return [
        Picture(f"{split}_{number:012d}", scene, number)
        for number, scene in enumerate(scenes, start=start)
    ]


def _statement(kind: Kind, rng: Random) -> Claim[Scene]:
    return _STATEMENTS[kind](rng)


def _asked_of(
    pictures: Sequence[Picture],
    write: Callable[[Kind, Random], Claim[Scene]],
    each: int,
    rng: Random,
) -> list[Fact]:
    """Write claims about every picture, kind by kind."""
    facts = []
    for kind in KINDS:
        group = [picture for picture in pictures if picture.scene.kind == kind]
        scenes = [picture.scene for picture in group]
        facts += facts_of(group, spread(partial(write, kind), scenes, each=each, rng=rng))
    return facts


def _asked_of_alike(
    pictures: Sequence[Picture],
    write: Callable[[Kind, Random], Claim[Scene]],
    each: int,
    rng: Random,
) -> list[Fact]:
    """Write claims that are true of some pictures with the same things and false of others."""
    alike: dict[tuple[Kind, tuple[Thing, ...]], list[Picture]] = defaultdict(list)
    for picture in pictures:
        things = sorted(thing_of(item) for item in picture.scene.items)
        alike[picture.scene.kind, tuple(things)].append(picture)
    facts = []
    for (kind, _), group in alike.items():
        scenes = [picture.scene for picture in group]
        claim = partial(write, kind)
        asked = spread(
            claim, scenes, each=each, rng=rng, window=len(group), tries=_TRIES_AMONG_ALIKE
        )
        facts += facts_of(group, asked)
    return facts


def facts_of(pictures: Sequence[Picture], asked: Iterator[Asked[Scene]]) -> list[Fact]:
    """Return what `spread` asked of the scenes of these pictures, one after another."""
    return [
        Fact(pictures[index], one.claim.text, answer, one.claim.topic)
        for one in asked
        for index, answer in one.answers
    ]


def _pair_facts(
    split: str, pictures: Sequence[Picture], rng: Random, config: WorldConfig
) -> Iterator[PairFact]:
    """Yield statements about pairs; a set is some pairs of one kind that get the same sentences."""
    group = 0
    for kind in KINDS:
        pairs = _pairs([pic for pic in pictures if pic.scene.kind == kind], config.pairs, rng)
        for start in range(0, len(pairs), _PAIRS_OF_A_SET):
            members = pairs[start : start + _PAIRS_OF_A_SET]
            scenes = [(left.scene, right.scene) for left, right in members]
            claim = partial(pair_statement, kind)
            asked = spread(claim, scenes, each=config.pair_statements, rng=rng)
            yield from _set_facts(f"{split}-{group}", members, asked)
            group += 1


def _pairs(pictures: Sequence[Picture], each: float, rng: Random) -> list[tuple[Picture, Picture]]:
    """Pair pictures by lot, `each` pairs for every one; all are in equally many, or in one more."""
    pairs: list[tuple[Picture, Picture]] = []
    wanted = math.ceil(round(each * len(pictures), 6))
    while len(pictures) > 1 and len(pairs) < wanted:
        lot = rng.sample(pictures, len(pictures))
        pairs += zip(lot[::2], lot[1::2], strict=False)
    return pairs[:wanted]


def _set_facts(
    name: str, pairs: Sequence[tuple[Picture, Picture]], asked: Iterator[Asked[Pair]]
) -> Iterator[PairFact]:
    for sentence, one in enumerate(asked):
        for index, answer in one.answers:
            left, right = pairs[index]
            identifier = f"{name}-{index}-{sentence}"
            yield PairFact(identifier, left, right, one.claim.text, answer == TRUE)


def _references(
    pictures: Sequence[Picture], rng: Random, config: WorldConfig
) -> Iterator[Reference]:
    """Yield up to `config.expressions` expressions about each square scene, of things by lot."""
    for picture in pictures:
        if picture.scene.kind == "square":
            items = picture.scene.items
            for _ in range(config.expressions):
                index = rng.randrange(len(items))
                text = expression(picture.scene, items[index], rng)
                if text is not None:
                    yield Reference(picture, index, text)


def _nlvr_facts(lots: Mapping[str, list[Scene]], rng: Random) -> Iterator[NlvrFact]:
    """Yield, as in NLVR v1, a sentence for each family of four, true of two and false of two."""
    scenes = [scene for kind in ("towers", "scatter") for scene in lots[f"{kind} nlvr"]]
    for start in range(0, len(scenes), FAMILY):
        family = scenes[start : start + FAMILY]
        claim, answers = _halving(family, rng)
        for m, (scene, answer) in enumerate(zip(family, answers, strict=True)):
            yield NlvrFact(f"{start // FAMILY}-{m}", scene, claim.text, answer == TRUE)


def _halving(family: Sequence[Scene], rng: Random) -> tuple[Claim[Scene], list[str | None]]:
    for _ in range(_TRIES):
        claim = _STATEMENTS[family[0].kind](rng)
        answers = [claim.answer(scene) for scene in family]
        if answers.count(TRUE) == answers.count(FALSE) == FAMILY // 2:
            return claim, answers
    raise RuntimeError(f"no statement halves the family {[scene.key for scene in family]}")
