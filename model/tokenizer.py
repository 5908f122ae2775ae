"""WordPiece tokenizers, BERT-uncased in form: trained here, read from files, or from the hub."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.trainers import WordPieceTrainer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from semvlp.errors import ConfigError, InputError
from semvlp.model.config import SemVLPConfig

log = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
MAX_LETTERS = 1000
"""The most frequent letters, always kept; with rarer ones they take at most half of the entries."""
MAX_UNKNOWN = 0.01
"""The share of unknown word pieces from which on it is a warning."""
NO_LIMIT = 10**9
SAMPLE = 10_000
"""Texts whose unknown word pieces are counted."""
VOCABULARIES = ("tokenizer.json", "vocab.txt")


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a lower-case WordPiece vocabulary of at most `vocab_size` entries.

    The same texts in any order give the same vocabulary: ids 0..4 are the special tokens, then the
    letters in code-point order, their continuations, and merges by falling frequency.

    Raises:
        ConfigError: a vocabulary too small for the special tokens and the letters of the texts.
    """
    texts = list(texts)
    backend = BertTokenizer().backend_tokenizer
    letters, continuations = _letters(backend, texts, vocab_size)
    first = [*SPECIAL_TOKENS, *letters, *continuations]
    if vocab_size < len(first):
        raise ConfigError(
            f"the vocabulary size must be at least {len(first)} for the special tokens and letters "
            f"of these texts, got {vocab_size}"
        )
    # The trainer numbers letters as a hash table yields them and breaks ties by number. Given as
    # special tokens, they have their numbers beforehand and nothing depends on the table.
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=first,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return BertTokenizer(vocab=backend.get_vocab(with_added_tokens=False))


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a directory, from a `vocab.txt` (then BERT uncased), or from the hub.

    Raises:
        InputError: a file that is not a WordPiece vocabulary.
        ConfigError: no such file, and the hub does not give it out either.
    """
    path = Path(name_or_path)
    if path.is_file():
        return BertTokenizer(vocab=_read_vocabulary(path))
    if path.is_dir() and not any((path / name).is_file() for name in VOCABULARIES):
        # transformers would make an empty one, to which every word is unknown.
        raise ConfigError(
            f"model.tokenizer must be a directory that holds {' or '.join(VOCABULARIES)}, but "
            f"{path} has none; a checkpoint needs the tokenizer that it was trained with"
        )
    network = _network_config(path)
    try:
        # Unless it is told the configuration, transformers imports all models, which takes seconds.
        tokenizer = AutoTokenizer.from_pretrained(
            str(name_or_path),
            config=SemVLPConfig.from_dict(network) if _is_own(network) else None,
            local_files_only=path.is_dir(),
            trust_remote_code=False,
        )
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"model.tokenizer must be a local directory or vocab.txt, a name that the Hugging Face "
            f"hub gives out, or 'train' to learn one from the texts of the shards; "
            f"{str(name_or_path)!r} could not be read: {error}"
        ) from error
    _check_size(path, network, len(tokenizer))
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.cls_token_id is None:
        raise ConfigError(
            f"model.tokenizer must be a fast tokenizer with BERT's special tokens, got "
            f"{type(tokenizer).__name__} for {str(name_or_path)!r}"
        )
    return tokenizer


def _network_config(directory: Path) -> dict[str, Any]:
    """Read the config.json beside a tokenizer, {} where there is none."""
    try:
        return SemVLPConfig.get_config_dict(directory)[0] if directory.is_dir() else {}
    except OSError:
        return {}


def _check_size(directory: Path, network: Mapping[str, Any], size: int) -> None:
    """Check that the tokenizer of a checkpoint is that of its network."""
    wanted = network.get("vocab_size", size)
    # Published networks have rows for tokens that their vocabularies may lack.
    if not (size == wanted if _is_own(network) else size <= wanted):
        raise ConfigError(
            f"{directory}: the tokenizer must have the {wanted} entries of the network in "
            f"config.json, but has {size}; it is of another checkpoint"
        )


def _is_own(network: Mapping[str, Any]) -> bool:
    return network.get("model_type") == SemVLPConfig.model_type


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int
) -> list[list[int]]:
    """Encode each text as [CLS] .. [SEP], truncated before the [SEP] to `max_length` tokens.

    A text that speaks of `[MASK]` has these letters, not the token.
    """
    if max_length < 2:
        raise ValueError(f"max_length must leave room for [CLS] and [SEP], got {max_length}")
    if not texts:
        return []
    # Truncated here: a tokenizer that truncates keeps doing so, and would be saved with it.
    encoded = tokenizer(list(texts), verbose=False, split_special_tokens=True)["input_ids"]
    return [ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]] for ids in encoded]


def tell_unknown(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], source: str) -> None:
    """Log the share of word pieces of the first texts that the vocabulary does not know.

    A word with a letter that it lacks is unknown as a whole; above one in a hundred that is a
    warning, with some of the letters.

    Args:
        source: what the texts are called.
    """
    few = list(islice(texts, SAMPLE))
    ids = [i for each in encode(tokenizer, few, NO_LIMIT) for i in each[1:-1]]
    unknown = ids.count(tokenizer.unk_token_id)
    if not unknown:
        return
    known = tokenizer.get_vocab()
    normal = tokenizer.backend_tokenizer.normalizer
    letters = {c for text in few for c in normal.normalize_str(text) if not c.isspace()}
    strange = sorted(c for c in letters if c not in known and f"{CONTINUATION}{c}" not in known)
    log.log(
        logging.WARNING if unknown > MAX_UNKNOWN * len(ids) else logging.INFO,
        "%s: %.3g %% of the word pieces are unknown to the vocabulary, which has %d entries%s",
        *(source, 100 * unknown / len(ids), len(tokenizer)),
        f" but not {' '.join(strange[:10])}" if strange else "",
    )


def _letters(
    backend: Tokenizer, texts: Sequence[str], vocab_size: int
) -> tuple[list[str], list[str]]:
    """Return the most frequent letters in code-point order, and those inside words, with ##."""
    normal, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    words: Counter[str] = Counter()
    # BERT's rules never reach over a blank, so what stands between two is cut once.
    for part, count in Counter(chain.from_iterable(text.split(" ") for text in texts)).items():
        for word, _ in split(normal(part)):
            words[word] += count
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    inside = {letter for word in words for letter in word[1:]}
    often = sorted(counts, key=lambda letter: (-counts[letter], letter))
    entries = accumulate(1 + (letter in inside) for letter in often)
    fitting = sum(size <= (vocab_size - len(SPECIAL_TOKENS)) // 2 for size in entries)
    kept = often[: max(MAX_LETTERS, fitting)]
    return sorted(kept), [f"{CONTINUATION}{letter}" for letter in sorted(inside & set(kept))]


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Read one entry a line, its id the line number from 0."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a vocabulary is UTF-8 text, one entry a line: {error}") from None
    missing = [token for token in SPECIAL_TOKENS if token not in lines]
    if missing:
        raise InputError(
            f"{path}: a BERT vocabulary must hold {', '.join(SPECIAL_TOKENS)}, one entry a line; "
            f"{', '.join(missing)} missing"
        )
    return {token: index for index, token in enumerate(lines)}
