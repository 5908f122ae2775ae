"""The TSV files of bottom-up attention and of LXMERT: boxes and features in base64.

Bottom-up attention: six columns, width before height, no labels. Layout:
peteanderson80/bottom-up-attention tools/generate_tsv.py `FIELDNAMES`.

LXMERT: ten columns, height BEFORE width, labels from 0 without background. Layout: airsplay/lxmert
src/utils.py `FIELDNAMES`. VOLTA's files add columns behind these; they are not read.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.tsv import (
    RowOffset,
    encode_array,
    first_rows,
    labelled_regions,
    read_row,
    rows_dataset,
    tsv_files,
    write_rows,
)
from semvlp.shards.record import NO_ATTRIBUTE, Regions

LXMERT_FIELDS = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)

HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of such a file."""

BUTD_FIELDS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")


def open_lxmert_tsv(path: Path) -> CommunityDataset:
    """Open the rows of a file, or of all `*.tsv` of a directory.

    Raises:
        InputError: none of the first rows has ten columns.
    """
    files = tsv_files(path)
    columns = [len(row) for row in first_rows(files[0])] or [1]
    if max(columns) < len(LXMERT_FIELDS):
        raise _wrong_columns(files[0], "an LXMERT TSV", LXMERT_FIELDS, columns[0])
    return rows_dataset(files, _read_lxmert)


def write_lxmert_tsv(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write one row an image."""
    rows = ([image.image_id, *lxmert_columns(image).values()] for image in regions)
    return write_rows(path, rows)


def lxmert_columns(regions: Regions) -> dict[str, object]:
    """Return the columns of one image but for its id; arrays are base64 text."""
    return {
        "img_h": regions.height,
        "img_w": regions.width,
        "objects_id": encode_array(regions.object_ids, "<i8"),
        "objects_conf": encode_array(regions.object_conf, "<f4"),
        # The files have no "none": 0 with confidence 0 is how LXMERT's own script wrote it.
        "attrs_id": encode_array(
            np.where(regions.attribute_ids == NO_ATTRIBUTE, 0, regions.attribute_ids), "<i8"
        ),
        "attrs_conf": encode_array(regions.attribute_conf, "<f4"),
        "num_boxes": len(regions),
        "boxes": encode_array(regions.boxes, "<f4"),
        "features": encode_array(regions.features, "<f4"),
    }


def open_butd_tsv(path: Path) -> CommunityDataset:
    """Open the rows of a file, or of all `*.tsv` of a directory.

    Raises:
        InputError: the first rows have another number of columns.
    """
    files = tsv_files(path)
    columns = [len(row) for row in first_rows(files[0])] or [1]
    if len(BUTD_FIELDS) not in columns:
        raise _wrong_columns(files[0], "a bottom-up-attention TSV", BUTD_FIELDS, columns[0])
    return rows_dataset(files, _read_butd)


def write_butd_tsv(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write one row an image; object and attribute labels have no offset in this format."""
    return write_rows(path, map(_butd_row, regions))


def _wrong_columns(file: Path, kind: str, fields: Sequence[str], columns: int) -> InputError:
    other = "lxmert-tsv" if columns >= len(LXMERT_FIELDS) else ""
    other = "butd-tsv" if columns == len(BUTD_FIELDS) else other
    with file.open("rb") as opened:
        other = "butd-hdf5" if opened.read(len(HDF5)) == HDF5 else other
    hint = f", as a file of another format has: give --from {other}" if other else ""
    return InputError(
        f"{file}: {kind} has {len(fields)} columns ({', '.join(fields)}), "
        f"its first row has {columns}{hint}"
    )


def _read_lxmert(offset: RowOffset) -> RawRegions:
    row = read_row(offset)
    if len(row) < len(LXMERT_FIELDS):
        raise InputError(
            f"its row has {len(row)} of {len(LXMERT_FIELDS)} columns: the file is cut short"
        )
    return labelled_regions(dict(zip(LXMERT_FIELDS, row, strict=False)))


def _read_butd(offset: RowOffset) -> RawRegions:
    row = read_row(offset)
    if len(row) != len(BUTD_FIELDS):
        raise InputError(
            f"its row has {len(row)} of {len(BUTD_FIELDS)} columns: the file is damaged"
        )
    _, width, height, count, boxes, features = row
    return labelled_regions(
        {
            "img_w": width,
            "img_h": height,
            "num_boxes": count,
            "boxes": boxes,
            "features": features,
        }
    )


def _butd_row(regions: Regions) -> list[object]:
    return [
        regions.image_id,
        regions.width,
        regions.height,
        len(regions),
        encode_array(regions.boxes, "<f4"),
        encode_array(regions.features, "<f4"),
    ]


LXMERT_TSV = CommunityFormat(
    what="TSV of LXMERT: labels, attributes, boxes and features in base64",
    open=open_lxmert_tsv,
    write=write_lxmert_tsv,
)

BUTD_TSV = CommunityFormat(
    what="TSV of bottom-up-attention: boxes and features in base64, no labels",
    open=open_butd_tsv,
    write=write_butd_tsv,
)
