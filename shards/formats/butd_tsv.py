"""The bottom-up-attention TSV: six columns, width before height, no labels.

Layout: peteanderson80/bottom-up-attention tools/generate_tsv.py `FIELDNAMES`.
"""

from collections.abc import Iterable
from pathlib import Path

from semvlp.errors import InputError
from semvlp.shards.formats.columns import encode_array, labelled_regions
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.formats.tsv import Place, first_row, read_row, rows_source, tsv_files, write_rows
from semvlp.shards.record import Regions

FIELD_NAMES = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")


def open_butd_tsv(path: Path) -> Source:
    """The rows of a file, or of all `*.tsv` of a directory.

    Raises:
        InputError: the first row has another number of columns.
    """
    files = tsv_files(path)
    columns = len(first_row(files[0]))
    if columns != len(FIELD_NAMES):
        raise InputError(
            f"{files[0]}: a bottom-up-attention TSV has {len(FIELD_NAMES)} columns "
            f"({', '.join(FIELD_NAMES)}), its first row has {columns}"
        )
    return rows_source(files, _read)


def write_butd_tsv(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """One row an image; object and attribute labels have no place in this format."""
    return write_rows(path, map(_row, regions))


def _row(regions: Regions) -> list[object]:
    return [
        regions.image_id,
        regions.width,
        regions.height,
        len(regions),
        encode_array(regions.boxes, "<f4"),
        encode_array(regions.features, "<f4"),
    ]


def _read(place: Place) -> RawRegions:
    row = read_row(place)
    if len(row) != len(FIELD_NAMES):
        raise InputError(
            f"its row has {len(row)} of {len(FIELD_NAMES)} columns: the file is damaged"
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


BUTD_TSV = CommunityFormat(
    what="TSV of bottom-up-attention: boxes and features in base64, no labels",
    open=open_butd_tsv,
    write=write_butd_tsv,
)
