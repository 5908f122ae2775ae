"""Making everything beside the samples anew: manifest, indexes, commit records."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from semvlp.atomic import PART_DIR, publish_bytes, publish_json, publish_pieces, publish_text
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.dataset.manifest import (
    MANIFEST_NAME,
    Manifest,
    Refusal,
    ShardEntry,
    read_manifest,
)
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.dataset.plan_file import read_plan
from semvlp.shards.dataset.refusals import RefusalLog
from semvlp.shards.stores.lmdb_store import LMDB_NAME, META_KEY, TEXTS_NAME, read_all
from semvlp.shards.stores.tar_index import INDEX_NAME, Index, concatenate
from semvlp.shards.stores.tar_writer import commit_text, read_back, shard_name
from semvlp.shards.writer import manifest_of


def repair(path: Path) -> Manifest:
    """Rebuild what follows from the samples, each of which is checked; those are not touched.

    What was to be extracted is taken from `plan.json`, the images left out from `refused.jsonl`.

    Raises:
        InputError: a sample is damaged or missing, or there is no readable plan: then only the
            command that made the data set can help.
        ConfigError: another process is writing there.
    """
    for name in (LMDB_NAME, TEXTS_NAME):
        if (path / name).exists():
            return _publish(path, _lmdb_manifest(path / name))
    plan = read_plan(path)
    refused = _read_refusals(path, plan)
    shards = [_read_shard(path, plan, shard, refused) for shard in range(plan.num_shards)]
    for shard, (index, entry) in enumerate(shards):
        tar = path / shard_name(shard)
        publish_bytes(tar.with_suffix(".idx"), index.to_bytes())
        publish_text(tar.with_suffix(".json"), commit_text(entry))
    whole = concatenate((index for index, _ in shards), sum(len(index.keys) for index, _ in shards))
    publish_pieces(path / INDEX_NAME, whole.pieces())
    entries = tuple(entry for _, entry in shards)
    return _publish(path, manifest_of(plan, "tar", refused, shards=entries))


def _publish(path: Path, manifest: Manifest) -> Manifest:
    publish_json(path / MANIFEST_NAME, manifest.to_json())
    with suppress(OSError):
        # Only where it is empty: a process that was killed may have left something.
        (path / PART_DIR).rmdir()
    return read_manifest(path)


def _read_shard(
    path: Path, plan: Plan, shard: int, refused: dict[int, Refusal]
) -> tuple[Index, ShardEntry]:
    """Read index and entry of one shard, which must hold what the plan says."""
    tar = path / shard_name(shard)
    wanted = [plan.image_ids[p] for p in plan.positions(shard) if p not in refused]
    try:
        index, entry = read_back(tar, shard)
    except (InputError, FileNotFoundError) as error:
        raise InputError(f"{tar} cannot be repaired: {error}; {_REMEDY}") from error
    if index.keys != wanted:
        raise InputError(
            f"{tar} must hold {len(wanted)} samples of the plan, but holds {len(index.keys)} "
            f"of them or others; {_REMEDY}"
        )
    return index, entry


def _lmdb_manifest(file: Path) -> Manifest:
    """Read the manifest that the database itself holds, with the size and hash of its file."""
    meta = next((value for key, value in read_all(file) if key == META_KEY.decode()), b"")
    try:
        entry: dict[str, Any] = from_json(meta)
        entry["shards"][0] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        return Manifest.from_json(entry)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{file} holds no manifest: it is not finished; {_REMEDY}") from error


def _read_refusals(path: Path, plan: Plan) -> dict[int, Refusal]:
    log = RefusalLog(path)
    try:
        return log.read(plan)
    finally:
        log.close()


_REMEDY = "copy the file again, or run the command that made the data set once more"
