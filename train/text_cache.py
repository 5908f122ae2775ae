"""Word pieces of texts, each distinct text tokenised once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.model.tokenizer import encode
from semvlp.train.masking import MaskingVocabulary

LARGEST = 500_000  # texts; at 20 word pieces each about 150 MB


class TextCache:
    """Turns texts into ids `[CLS] ... [SEP]`; starts anew when it has grown to LARGEST texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._known: dict[str, NDArray[np.int64]] = {}

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Ids [T] int64 of each text; the arrays are shared, so they must not be written to."""
        if len(self._known) > LARGEST:
            self._known.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            rows = encode(self._tokenizer, new, self._max_length)
            self._known.update(
                (text, np.array(ids, np.int64)) for text, ids in zip(new, rows, strict=True)
            )
        return [self._known[text] for text in texts]


def masking_vocabulary(tokenizer: PreTrainedTokenizerFast) -> MaskingVocabulary:
    """What masking needs to know of a tokenizer."""
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    continues = np.array([piece.startswith("##") for piece in pieces])
    return MaskingVocabulary(int(tokenizer.mask_token_id), ordinary, continues)
