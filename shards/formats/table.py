"""The community formats by name, each imported when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING

from semvlp.errors import ConfigError

if TYPE_CHECKING:
    from semvlp.shards.formats.community import CommunityFormat

FORMATS = {
    "lxmert-tsv": "bottom_up_tsv.LXMERT_TSV",
    "butd-tsv": "bottom_up_tsv.BUTD_TSV",
    "butd-hdf5": "bottom_up_hdf5.BUTD_HDF5",
    "uniter-npz": "uniter.UNITER_NPZ",
    "uniter-lmdb": "uniter.UNITER_LMDB",
    "vilbert-lmdb": "pickle_lmdb.VILBERT_LMDB",
    "volta-lmdb": "pickle_lmdb.VOLTA_LMDB",
    "milvlg-npz": "milvlg_npz.MILVLG_NPZ",
    "vinvl-tsv": "vinvl_tsv.VINVL_TSV",
    "mmf-npy": "mmf_npy.MMF_NPY",
    "mmf-lmdb": "mmf_npy.MMF_LMDB",
}
"""Name of a format -> its file in `systems`, and the `CommunityFormat` there."""
PARQUET = "parquet"
"""The format that keeps everything a store holds; see `parquet.py`."""


def load_format(name: str) -> "CommunityFormat":
    """Return the format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    module, constant = FORMATS[name].split(".")
    community: CommunityFormat = getattr(import_module(f"{__package__}.systems.{module}"), constant)
    return community
