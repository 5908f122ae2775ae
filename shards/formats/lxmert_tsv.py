"""LXMERT's TSV: ten columns, height BEFORE width, labels from 0 without background.

Layout: airsplay/lxmert src/utils.py `FIELDNAMES`. VOLTA's files add columns behind these; they are
not read.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.formats.columns import encode_array, labelled_regions
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.formats.tsv import Place, first_row, read_row, rows_source, tsv_files, write_rows
from semvlp.shards.record import NO_ATTRIBUTE, Regions

FIELD_NAMES = (
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


def open_lxmert_tsv(path: Path) -> Source:
    """The rows of a file, or of all `*.tsv` of a directory.

    Raises:
        InputError: the first row has fewer than ten columns.
    """
    files = tsv_files(path)
    columns = len(first_row(files[0]))
    if columns < len(FIELD_NAMES):
        raise InputError(
            f"{files[0]}: an LXMERT TSV has {len(FIELD_NAMES)} columns ({', '.join(FIELD_NAMES)}), "
            f"its first row has {columns}"
        )
    return rows_source(files, _read)


def lxmert_columns(regions: Regions) -> dict[str, object]:
    """The columns of one image but for its id; arrays as base64 text."""
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


def write_lxmert_tsv(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """One row an image."""
    rows = ([image.image_id, *lxmert_columns(image).values()] for image in regions)
    return write_rows(path, rows)


def _read(place: Place) -> RawRegions:
    row = read_row(place)
    if len(row) < len(FIELD_NAMES):
        raise InputError(
            f"its row has {len(row)} of {len(FIELD_NAMES)} columns: the file is cut short"
        )
    return labelled_regions(dict(zip(FIELD_NAMES, row, strict=False)))


LXMERT_TSV = CommunityFormat(
    what="TSV of LXMERT: labels, attributes, boxes and features in base64",
    open=open_lxmert_tsv,
    write=write_lxmert_tsv,
)
