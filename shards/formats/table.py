"""The community formats by name."""

from semvlp.shards.formats.butd_tsv import BUTD_TSV
from semvlp.shards.formats.lxmert_tsv import LXMERT_TSV
from semvlp.shards.formats.milvlg_npz import MILVLG_NPZ
from semvlp.shards.formats.mmf_npy import MMF_NPY
from semvlp.shards.formats.source import CommunityFormat
from semvlp.shards.formats.uniter_lmdb import UNITER_LMDB
from semvlp.shards.formats.uniter_npz import UNITER_NPZ
from semvlp.shards.formats.vilbert_lmdb import VILBERT_LMDB
from semvlp.shards.formats.vinvl_tsv import VINVL_TSV
from semvlp.shards.formats.volta_lmdb import VOLTA_LMDB

FORMATS: dict[str, CommunityFormat] = {
    "lxmert-tsv": LXMERT_TSV,
    "butd-tsv": BUTD_TSV,
    "uniter-npz": UNITER_NPZ,
    "uniter-lmdb": UNITER_LMDB,
    "vilbert-lmdb": VILBERT_LMDB,
    "volta-lmdb": VOLTA_LMDB,
    "milvlg-npz": MILVLG_NPZ,
    "vinvl-tsv": VINVL_TSV,
    "mmf-npy": MMF_NPY,
}
