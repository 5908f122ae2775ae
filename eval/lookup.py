"""The regions of the images that examples name, looked up in a store."""

from collections.abc import Iterable, Sequence

from semvlp.errors import InputError
from semvlp.eval.task import Example
from semvlp.model.packing import PairRegions
from semvlp.shards.record import Regions, Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.texts.image_ids import ImageIds

SHOWN = 10
IN_TRAINING = "; --skip-missing trains without these examples"
"""What else can be done where nothing is scored."""


class RegionLookup:
    """Regions by the names of images as annotation files spell them.

    Args:
        galleries: whether the images that texts are compared with are looked up too; training needs
            only those of the examples.
        otherwise: what else can be done where images are missing, for people.

    Raises:
        InputError: images that the store lacks; official scores count every example, so none may
            be left out.
    """

    def __init__(
        self,
        store: Store,
        examples: Sequence[Example],
        *,
        max_regions: int,
        galleries: bool = False,
        otherwise: str = "",
    ) -> None:
        self._store, self._max_regions = store, max_regions
        ids = ImageIds(store.image_ids)
        names = dict.fromkeys(name for example in examples for name in example.images)
        if galleries:
            every = {id(example.gallery): example.gallery for example in examples}
            names |= dict.fromkeys(name for gallery in every.values() for name in gallery)
        self._image_ids = {name: ids.find(name) for name in names}
        missing = [name for name, image_id in self._image_ids.items() if image_id is None]
        if missing:
            raise InputError(_message(store, examples, missing, len(names)) + otherwise)

    def __call__(self, names: Iterable[str]) -> list[PairRegions]:
        """Return features, boxes (xyxy pixels), width and height of each image.

        An image that is named several times is read once.
        """
        listed = list(names)
        read = {
            name: pair_regions(self.sample(name).regions, self._max_regions)
            for name in dict.fromkeys(listed)
        }
        return [read[name] for name in listed]

    def sample(self, name: str) -> Sample:
        """Return all that the store holds of an image."""
        image_id = self._image_ids[name]
        assert image_id is not None
        return self._store.sample(self._store.index_of(image_id))


def with_images(store: Store, examples: Sequence[Example]) -> list[Example]:
    """Return the examples all of whose images the store holds."""
    ids = ImageIds(store.image_ids)
    names = dict.fromkeys(name for example in examples for name in example.images)
    held = {name for name in names if ids.find(name) is not None}
    return [example for example in examples if held.issuperset(example.images)]


def pair_regions(regions: Regions, most: int) -> PairRegions:
    """Return the `most` most confident regions of an image as a network takes them."""
    return regions.features[:most], regions.boxes[:most], regions.width, regions.height


def _message(store: Store, examples: Sequence[Example], missing: Sequence[str], total: int) -> str:
    lacking = set(missing)
    touched = [e.example_id for e in examples if not lacking.isdisjoint(e.images)]
    needed = f"which {len(touched)} examples need, first {touched[0]!r}" if touched else ""
    shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    return (
        f"{store.path}: must hold the images of all {len(examples)} examples, but lacks "
        f"{len(missing)} of {total} ({shown}), {needed or 'which every text is compared with'}; "
        "extract them too (refused.jsonl says which were refused)"
    )
