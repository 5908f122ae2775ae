"""A community data set under keys of ours: whatever its images are called, each has one."""

from dataclasses import replace
from functools import partial

from semvlp.errors import InputError, shown
from semvlp.shards.formats.community import CommunityDataset, Unreadable
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import key_of


def under_keys(dataset: CommunityDataset) -> CommunityDataset:
    """Return the data set whose image ids are legal keys, see `key_of`.

    Its last images are the records that stand for none, and those whose name is no text or has the
    key of another: reading them gives the reason.
    """
    ids: dict[str, str] = {}
    lost: dict[str, Unreadable] = {}
    for image_id in dataset.image_ids:
        key = key_of(image_id)
        if key in ids:
            reason = f"its name has the key of another image, {shown(ids[key])}"
        elif not _is_text(image_id):
            reason = "its name is not text"
        else:
            ids[key] = image_id
            continue
        lost[key_of(f"./{image_id}")] = Unreadable(dataset.file_of(image_id), reason)
    for name, unreadable in dataset.unreadable.items():
        lost[key_of(f"./{name}")] = unreadable

    def task(key: str) -> partial[RawRegions]:
        assert dataset.task is not None, "asked for only where there is one"
        return partial(_fail, lost[key].reason) if key in lost else partial(dataset.task(ids[key]))

    def name_of(key: str) -> str:
        return ids[key] if ids.get(key, key) != key else ""

    return replace(
        dataset,
        image_ids=(*ids, *lost),
        read=lambda key: _fail(lost[key].reason) if key in lost else dataset.read(ids[key]),
        file_of=lambda key: lost[key].file if key in lost else dataset.file_of(ids[key]),
        task=task if dataset.task else None,
        name_of=name_of,
        last_rows=frozenset(map(key_of, dataset.last_rows)),
        unreadable={},
    )


def _is_text(name: str) -> bool:
    return name.isprintable() or not any(0xD800 <= ord(letter) < 0xE000 for letter in name)


def _fail(reason: str) -> RawRegions:
    raise InputError(reason)
