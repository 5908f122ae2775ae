"""Eyes: the detector that a checkpoint's regions came from, opened again from their profile.

A profile names no path, so known detectors of the same network are tried, and whether one gives
such regions is told by the hash of its weights.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semvlp import web
from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Detector, OpenVocabulary
from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.find import (
    DECODING_VERSION,
    ImageFile,
    Refused,
    decode,
    from_bytes,
    load,
)
from semvlp.extract.networks import MODELS, NETWORKS
from semvlp.extract.presets import PRESETS, resolve
from semvlp.extract.select import select
from semvlp.shards.dataset.hashes import plain, profile_hash
from semvlp.shards.dataset.plan import differences
from semvlp.shards.record import Regions
from semvlp.web import is_web_address

Photo = str | Path | ImageFile | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow, or RGB pixels [H, W, 3]; an address of the web where it is let in."""
Seen = Photo | Regions
"""A photograph, or what `Seeing.regions` gave for one."""
# Sizes to which images are brought; other numbers of a network are its own.
RESIZING = ("shorter_side", "longer_side")
NAMELESS = "photo"
MAX_BYTES, MAX_SECONDS = 32 * 2**20, 60.0
"""Of a photograph from the web."""


class Eyes:
    """A detector and a selection that give regions as a checkpoint knows them.

    Args:
        urls: whether a photograph may be an address of the web.
    """

    def __init__(
        self, detector: Detector, profile: Mapping[str, Any], *, urls: bool = False
    ) -> None:
        self.detector, self.profile, self.urls = detector, profile, urls
        self._hash = profile_hash(profile)
        self._rule = _selection(profile)

    def __call__(self, photo: Photo) -> Regions:
        """Return the regions of a photograph, most confident first.

        Raises:
            ConfigError: it is an address of the web, and these are not let in, or not this one.
            InputError: it cannot be read as an image, or the detector finds nothing in it.
        """
        if is_web_address(photo):
            if not self.urls:
                raise ConfigError(f"{photo}: photographs are fetched only by load(..., urls=True)")
            name, pixels = _fetched(str(photo))
        else:
            name, pixels = _pixels(photo)
        (proposals,) = self.detector([pixels])
        preset, min_regions, max_regions = self._rule
        return select(
            proposals,
            image_id=name,
            preset=preset,
            min_regions=min_regions,
            max_regions=max_regions,
            profile=self._hash,
        )


class Seeing:
    """What sees photographs as a checkpoint does: through a detector opened when first needed."""

    region_profile: Mapping[str, Any] | None
    detector: str | None
    """Where it is not known by name; see `open_eyes`."""
    device: str
    urls: bool = False

    @cached_property
    def eyes(self) -> Eyes:
        """The detector that the regions come from.

        Raises: as `open_eyes`.
        """
        return open_eyes(
            self.region_profile, detector=self.detector, device=self.device, urls=self.urls
        )

    def regions(self, photo: Seen) -> Regions:
        """Return the regions of a photograph as the network knows them.

        They may be given to the other methods instead of it, which then need no detector.

        Raises:
            ConfigError: the detector cannot be found; names what differs. Or the photograph is an
                address, and `load` was not told to take any.
            InputError: the photograph cannot be read.
        """
        return photo if isinstance(photo, Regions) else self.eyes(photo)


def open_eyes(
    profile: Mapping[str, Any] | None,
    *,
    detector: str | None = None,
    device: str = "auto",
    urls: bool = False,
) -> Eyes:
    """Open the detector that gave the regions of a profile.

    Args:
        profile: as a checkpoint's configuration keeps it.
        detector: its name, a directory that `semvlp detector train` wrote, or a detectron2 config;
            without it the known ones are tried.
        urls: whether a photograph may be an address of the web.

    Raises:
        ConfigError: no known detector is of this profile, or the given one is of another.
        InputError: its weights cannot be had.
    """
    if profile is None:
        raise ConfigError(
            "the checkpoint does not say which regions it was trained on; fine-tune it with this "
            "version, or give regions that `semvlp extract` has made"
        )
    if profile.get("decoding") != DECODING_VERSION:
        raise ConfigError(
            "the checkpoint's regions were not extracted by this version of `semvlp extract` but "
            f"come from {_origin(profile)}: give it regions of the same origin"
        )
    names = [detector] if detector else list(_candidates(profile))
    found = {}
    for name in names:
        opened = load_detector(
            name,
            backend=profile["backend"],
            device=device,
            precision=profile["precision"],
            settings=() if name not in KNOWN else _sizes(profile),
            **_features(profile),
        )
        if isinstance(opened, OpenVocabulary):
            opened.look_for(tuple(profile.get("labels", ())))
        found[name] = "; ".join(differences(_network(profile), plain(opened.profile)))
        if not found[name]:
            return Eyes(opened, profile, urls=urls)
    tried = "".join(f"; {name} differs: {difference}" for name, difference in found.items())
    raise ConfigError(
        f"no detector known by name gives such regions as the checkpoint was trained on{tried}; "
        "name the one that does by --detector (a directory that `semvlp detector train` wrote, or "
        "a config)"
    )


def _candidates(profile: Mapping[str, Any]) -> Iterator[str]:
    """Yield the detector that a profile names, or the known ones of a network with its numbers."""
    if profile.get("detector"):
        yield profile["detector"]
        return
    wanted = _without_sizes(profile.get("network", {}))
    for name, spec in KNOWN.items():
        network = MODELS.get(spec.network) or NETWORKS[spec.network]
        if name != "untrained" and _without_sizes(plain(network.stored())) == wanted:
            yield name


def _without_sizes(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in network.items() if name not in RESIZING}


def _sizes(profile: Mapping[str, Any]) -> tuple[str, ...]:
    network = profile.get("network", {})
    return tuple(f"{name}={network[name]}" for name in RESIZING if name in network)


def _features(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network that describes the regions, where a profile names one."""
    features = profile.get("features", {})
    if not features.get("network"):
        return {}
    return {"features": features["network"], "features_side": features["side"]}


def _network(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a profile that is the detector's own."""
    return {name: v for name, v in profile.items() if name not in ("selection", "decoding", "view")}


def _origin(profile: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in profile.items() if isinstance(value, str))


def _selection(profile: Mapping[str, Any]) -> tuple[str | None, int, int]:
    """Return preset and limits of the selection that a profile keeps.

    Raises:
        ConfigError: there is no such selection in this version.
    """
    stored = profile["selection"]
    if "given_boxes" in stored:
        raise ConfigError(
            "the checkpoint was trained on regions of boxes that were given (--boxes), which a "
            "photograph alone does not have: give it regions that `semvlp extract --boxes` has made"
        )
    limits = stored["min_regions"], stored["max_regions"]
    for preset in (None, *PRESETS):
        if plain(resolve(preset, *limits).stored()) == stored:
            return preset, *limits
    raise ConfigError(f"the checkpoint's regions were selected by an unknown rule: {stored}")


def _pixels(photo: Photo) -> tuple[str, NDArray[np.uint8]]:
    """Return the name of a photograph and its pixels, decoded as `semvlp extract` does."""
    try:
        if isinstance(photo, str | Path):
            photo = ImageFile(Path(photo).stem, Path(photo))
        if isinstance(photo, ImageFile):
            return photo.image_id, load(photo)
        if isinstance(photo, Image.Image):
            return NAMELESS, decode(photo)
    except Refused as error:
        raise InputError(f"{photo}: {error}") from error
    array = np.asarray(photo)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(
            "a photograph as an array must be RGB [H, W, 3] of uint8, got "
            f"{list(array.shape)} of {array.dtype}"
        )
    return NAMELESS, array


def _fetched(url: str) -> tuple[str, NDArray[np.uint8]]:
    """Return the name of a photograph of the web and its pixels."""
    data = web.read(url, most=MAX_BYTES, seconds=MAX_SECONDS)
    try:
        return PurePosixPath(unquote(urlsplit(url).path)).stem or NAMELESS, from_bytes(data)
    except Refused as error:
        raise InputError(f"{url}: {error}") from error
