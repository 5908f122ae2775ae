"""The community formats by name."""

from semvlp.shards.formats.bottom_up_tsv import BUTD_TSV, LXMERT_TSV
from semvlp.shards.formats.community import CommunityFormat
from semvlp.shards.formats.milvlg_npz import MILVLG_NPZ
from semvlp.shards.formats.mmf_npy import MMF_NPY
from semvlp.shards.formats.pickle_lmdb import VILBERT_LMDB, VOLTA_LMDB
from semvlp.shards.formats.uniter import UNITER_LMDB, UNITER_NPZ
from semvlp.shards.formats.vinvl_tsv import VINVL_TSV

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
