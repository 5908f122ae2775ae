"""Parquet: one row an image, as pandas, DuckDB and Hugging Face's datasets read it.

R regions, F feature size. Besides numbers a file holds the plan of its data set, as JSON in the
metadata under `semvlp`, so that a store comes back as it was. Groups of rows bound the memory.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from semvlp import atomic
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.names import StoreFormat
from semvlp.progress import Progress
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import TENSORS, Question, Regions, Sample, Texts
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import Writer, open_writer

METADATA = b"semvlp"
GROUP_BYTES = 32_000_000
"""Numbers in one group of rows, which is what a reader holds in memory."""
_FACTS = ("extractor", "object_labels", "attribute_labels", "feature_size", "samples_per_shard")
_HASHES = ("texts_sha256", "boxes_sha256")
_QUESTION = pa.struct(
    {
        "question": pa.string(),
        # JSON, because ids are numbers or texts and answers have any name.
        "question_id": pa.string(),
        "answers": pa.string(),
    }
)


def write_parquet(src: Path, dst: Path) -> int:
    """Write the samples of a store to the file `dst`; returns how many.

    Raises:
        InputError: `src` is no store, or damaged.
    """
    with open_store(src) as store, atomic.aside(dst) as made:
        schema = _schema(store.manifest)
        features = store.manifest.feature_size
        rows = max(1, GROUP_BYTES // max(1, features * 2 * _most_regions(store)))
        with (
            parquet.ParquetWriter(made, schema, write_page_checksum=True) as writer,
            Progress("exporting to parquet", total=len(store), unit="images") as bar,
        ):
            for start in range(0, len(store), rows):
                group = range(start, min(start + rows, len(store)))
                writer.write_batch(_batch([store.sample(index) for index in group], schema))
                bar.advance(len(group))
        return len(store)


def read_parquet(src: Path, dst: Path, *, to: StoreFormat, overwrite: bool = False) -> Manifest:
    """Read what `write_parquet` wrote into a new store; started again, it goes on.

    A row that is no sample is one line of refused.jsonl.

    Raises:
        ConfigError: another import was begun at `dst`.
        InputError: `src` is no such file, or damaged.
    """
    with _reading(src):
        opened = parquet.ParquetFile(src, page_checksum_verification=True)
    with opened as file:
        plan = _plan(file, src)
        with open_writer(dst, plan, format=to, overwrite=overwrite) as writer:
            _copy(file, src, writer)
            return writer.finish()


def _most_regions(store: Store) -> int:
    histogram = store.manifest.regions_histogram
    return max((count for count, images in enumerate(histogram) if images), default=1)


def _schema(manifest: Manifest) -> pa.Schema:
    facts = {name: getattr(manifest, name) for name in (*_FACTS, *_HASHES)}
    columns = {
        **{name: pa.string() for name in ("key", "image_id", "name")},
        **{name: pa.int32() for name in ("width", "height")},
        **{name: pa.list_(_region_type(name, manifest.feature_size)) for name in TENSORS},
        "captions": pa.list_(pa.string()),
        "questions": pa.list_(_QUESTION),
    }
    return pa.schema(columns, metadata={METADATA: json.dumps(facts)})


def _region_type(name: str, feature_size: int) -> pa.DataType:
    """Return the type of what one region has in a column: a number, or a row of them."""
    _, kind, trailing = TENSORS[name]
    number = pa.from_numpy_dtype(np.dtype(kind))
    return pa.list_(number, trailing[0] or feature_size) if trailing else number


def _batch(samples: Sequence[Sample], schema: pa.Schema) -> pa.RecordBatch:
    regions = [sample.regions for sample in samples]
    columns = {
        "key": [sample.key for sample in samples],
        "image_id": [each.image_id for each in regions],
        "name": [sample.name for sample in samples],
        "width": [each.width for each in regions],
        "height": [each.height for each in regions],
        "captions": [list(sample.texts.captions) for sample in samples],
        "questions": [[_row(each) for each in sample.texts.questions] for sample in samples],
    }
    arrays = [
        _lists([getattr(each, field.name) for each in regions], field.type)
        if field.name in TENSORS
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _lists(arrays: Sequence[NDArray[Any]], kind: pa.ListType) -> pa.ListArray:
    """Return arrays [R, ...] as one column, a list of R entries in each row."""
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    values = pa.array(np.concatenate(arrays).reshape(-1))
    if pa.types.is_fixed_size_list(kind.value_type):
        values = pa.FixedSizeListArray.from_arrays(values, kind.value_type.list_size)
    return pa.ListArray.from_arrays(offsets, values, type=kind)


def _row(question: Question) -> dict[str, Any]:
    identity, answers = question.question_id, json.dumps(question.answers, ensure_ascii=False)
    known = None if identity is None else json.dumps(identity)
    return {"question": question.question, "question_id": known, "answers": answers}


@contextmanager
def _reading(src: Path) -> Iterator[None]:
    """Make one clear error of what pyarrow raises inside.

    Raises:
        InputError: the file is no parquet, or damaged.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{src}: is no parquet file, or a damaged one: {error!s:.300}") from error


def _plan(file: parquet.ParquetFile, src: Path) -> Plan:
    """Return the plan of the data set that a file holds.

    Raises:
        InputError: its metadata or columns are not those that `write_parquet` writes.
    """
    metadata = file.schema_arrow.metadata or {}
    try:
        facts = from_json(metadata[METADATA])
        labels = {name: tuple(facts[name]) for name in ("object_labels", "attribute_labels")}
        given = {name: facts[name] for name in (*_FACTS, *_HASHES)} | labels
        with _reading(src):
            keys = file.read(columns=["key"]).column("key").to_pylist()
        return Plan(image_ids=tuple(keys), **given)
    except InputError as error:
        where = "" if str(src) in str(error) else f"{src}: "
        raise InputError(f"{where}{error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{src}: is not what `semvlp shards export --to parquet` writes: its metadata or "
            f"columns lack {error}"
        ) from error


def _copy(file: parquet.ParquetFile, src: Path, writer: Writer) -> None:
    pending = set(writer.pending)
    total = len(writer.plan.image_ids)
    with Progress("importing", total=total, unit="images", done=total - len(pending)) as bar:
        for group in range(file.num_row_groups):
            with _reading(src):
                batches = _wanted(file, group, pending)
            for batch in batches:
                for number, key in enumerate(batch.column("key").to_pylist()):
                    if key not in pending:
                        continue
                    try:
                        writer.write(_sample(batch, number, writer.plan))
                    except InputError as error:
                        writer.refuse(key, src, str(error))
                    bar.advance()


def _wanted(file: parquet.ParquetFile, group: int, pending: set[str]) -> list[pa.RecordBatch]:
    """Return the rows of a group, none where none of them is pending."""
    keys = file.read_row_group(group, columns=["key"]).column("key").to_pylist()
    return [] if pending.isdisjoint(keys) else file.read_row_group(group).to_batches()


def _sample(batch: pa.RecordBatch, number: int, plan: Plan) -> Sample:
    """Return the sample of a row.

    Raises:
        InputError: a column is missing or empty, or of another type or shape.
    """
    names = ("key", "image_id", "name", "width", "height", "captions", "questions")
    try:
        values = {name: batch.column(name)[number].as_py() for name in names}
        arrays: dict[str, Any] = {
            name: _array(batch.column(name)[number], name) for name in TENSORS
        }
        questions = tuple(
            Question(
                question=each["question"],
                answers=from_json(each["answers"]),
                question_id=None if each["question_id"] is None else from_json(each["question_id"]),
            )
            for each in values["questions"]
        )
        texts = Texts(captions=tuple(values["captions"]), questions=questions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the row does not hold a sample: {error!r:.200}") from error
    own = {name: values[name] for name in ("image_id", "width", "height")}
    if None in (*own.values(), values["key"], values["name"]):
        raise InputError("the row does not hold a sample: a cell is empty")
    regions = Regions(profile=plan.profile, **own, **arrays)
    return Sample(key=values["key"], regions=regions, texts=texts, name=values["name"])


def _array(cell: pa.ListScalar, name: str) -> NDArray[Any]:
    """Return a cell [R, ...]; numbers that its type does not hold are an error of pyarrow's."""
    _, kind, trailing = TENSORS[name]
    values, shape = cell.values, [-1]
    if trailing:
        values, shape = values.flatten(), [len(values), values.type.list_size]
    numbers: NDArray[Any] = values.cast(pa.from_numpy_dtype(np.dtype(kind))).to_numpy(
        zero_copy_only=False
    )
    return numbers.reshape(shape).astype(kind, copy=False)
