"""Views: what one published preset would have chosen, cut from the 100 regions stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from semvlp.errors import ConfigError
from semvlp.extract.presets import PRESETS, clamped, resolve
from semvlp.names import VIEWS, StoreFormat
from semvlp.shards.codec import decode, encode
from semvlp.shards.dataset.hashes import plain
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.maintenance.convert import check_copied, copy, refuse_same
from semvlp.shards.open import open_store
from semvlp.shards.record import TENSORS, Regions
from semvlp.shards.stores.store import Members, Store
from semvlp.shards.writer import open_writer

STORED = "top_100"


def view(regions: Regions, preset: str) -> Regions:
    """Return what the preset `butd_36` or `butd_10_100` chooses, cut from regions of `top_100`.

    They are the same regions, but for confidences that float16 cannot tell from the preset's 0.2;
    their `object_ids` and the profile stay those of `top_100`.

    Raises:
        ConfigError: a preset that chooses by another rule.
    """
    if preset not in VIEWS:
        raise ConfigError(f"a view of {STORED} is {' or '.join(VIEWS)}, got {preset!r}")
    rule = resolve(preset)
    count = clamped(regions.object_conf >= np.float16(rule.confidence), rule)
    return replace(regions, **{name: getattr(regions, name)[:count] for name in TENSORS})


def write_view(
    src: Path,
    dst: Path,
    *,
    preset: str,
    to: StoreFormat,
    overwrite: bool = False,
    max_bad: float | None = None,
) -> Manifest:
    """Write the `view` of every image of the data set `src`, which has a profile of its own.

    Started again after an interruption it goes on where it stopped. `max_bad` is that of `convert`.

    Raises:
        InputError: `src` is damaged.
        ConfigError: `src` was not extracted with `top_100`; `dst` is `src` or another data set.
        TooManyRefused: finished, but more than `max_bad` damaged images were left out.
    """
    with open_store(src) as store:
        refuse_same(store, dst)
        _check_stored(store, src)
        extractor = {**store.manifest.extractor, "view": preset}
        plan = replace(store.manifest.plan(store.image_ids), extractor=extractor)

        def cut(members: Members) -> Members:
            sample = decode(*members)
            regions = replace(view(sample.regions, preset), profile=plan.profile)
            return encode(replace(sample, regions=regions))

        with open_writer(dst, plan, format=to, overwrite=overwrite) as writer:
            copy(store, writer, "cutting", cut, skip=max_bad is not None)
            manifest = writer.finish()
        check_copied(store, dst, manifest, max_bad)
    return manifest


def _check_stored(store: Store, src: Path) -> None:
    extractor = store.manifest.extractor
    if extractor.get("selection") != plain(PRESETS[STORED].stored()) or "view" in extractor:
        raise ConfigError(
            f"a view is cut from what `semvlp extract --preset {STORED}` wrote; "
            f"{src} was selected by {extractor.get('selection', 'another system')}"
        )
