"""Training is deterministic, BERT's vocabulary tokenises as BERT does, files round trip."""

import json
import logging
from pathlib import Path

import huggingface_hub.constants
import pytest
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertTokenizer

from semvlp.errors import ConfigError, InputError
from semvlp.model import SemVLPConfig
from semvlp.model import tokenizer as tokenizer_module
from semvlp.model.tokenizer import encode, load_tokenizer, tell_unknown, train_wordpiece

TEXTS = [
    "A red square is left of a blue circle.",
    "a blue circle above two red squares",
    "Is there a Circle? Three circles, one square!",
    "naïve CAFÉ squares: 日本 circles",
]


def vocabulary(texts: list[str], size: int) -> list[str]:
    ids = train_wordpiece(texts, size).get_vocab()
    return sorted(ids, key=ids.__getitem__)


def test_training_puts_special_tokens_and_letters_first() -> None:
    tokens = vocabulary(TEXTS, 120)
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [token for token in tokens if len(token) == 1]
    assert tokens[5 : 5 + len(letters)] == letters == sorted(letters)
    assert {"circle", "square", "red", "日", "é"} & set(tokens) == {"circle", "square", "red", "日"}


def test_training_again_gives_the_same_vocabulary() -> None:
    # The library alone numbers letters differently each time, within one process too.
    assert len({tuple(vocabulary(TEXTS[::step], 90)) for step in (1, -1, 1, -1)}) == 1


def test_letters_are_counted_by_words_not_by_texts() -> None:
    cut: list[str] = []

    class Normalizer:
        def normalize_str(self, text: str) -> str:
            cut.append(text)
            return text.lower()

    class Splitter:
        def pre_tokenize_str(self, text: str) -> list[tuple[str, tuple[int, int]]]:
            return [(word, (0, 0)) for word in text.split()]

    class Backend:
        normalizer, pre_tokenizer = Normalizer(), Splitter()

    found = tokenizer_module._letters(Backend(), ["Ab b", "b Ab", "b b"], 100)  # type: ignore[arg-type]
    assert found == (["a", "b"], ["##b"])
    assert sorted(cut) == ["Ab", "b"]


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\u2028", "\x85"])
@pytest.mark.parametrize("odd", ["\x1c", "\u0301", "\u200d", "İ", "日", "-", "\ufffd"])
def test_letters_are_those_of_whole_texts(blank: str, odd: str) -> None:
    texts = [f"un{odd}e{blank}{odd}Deux {odd}", f"trois{blank}", "un"]
    backend = BertTokenizer().backend_tokenizer
    normal = [backend.normalizer.normalize_str(text) for text in texts]
    words = [w for text in normal for w, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    letters = sorted({letter for word in words for letter in word})
    inside = sorted({letter for word in words for letter in word[1:]})
    found = tokenizer_module._letters(backend, texts, 1000)
    assert found == (letters, [f"##{letter}" for letter in inside])


def test_training_on_real_captions_gives_one_vocabulary(real_data: Path) -> None:
    with (real_data / "coco" / "captions.json").open() as file:
        texts = [entry["caption"] for entry in json.load(file)["annotations"]]
    vocabularies = {tuple(vocabulary(order, 1500)) for order in (texts, texts[::-1])}
    assert len(vocabularies) == 1
    assert len(vocabularies.pop()) == 1500


def test_a_vocabulary_too_small_for_the_letters() -> None:
    with pytest.raises(ConfigError, match=r"at least \d+ for the special tokens and letters"):
        train_wordpiece(TEXTS, 20)


def test_encode_cuts_before_the_sep_and_leaves_the_tokenizer_alone() -> None:
    tokenizer = train_wordpiece(TEXTS, 120)
    ids = encode(tokenizer, ["a red circle", "square"], 4)
    a, red, square = tokenizer.convert_tokens_to_ids(["a", "red", "square"])
    assert ids == [[2, a, red, 3], [2, square, 3]]
    assert encode(tokenizer, [""], 4) == [[2, 3]]
    assert encode(tokenizer, [], 4) == []
    assert tokenizer.backend_tokenizer.truncation is None
    with pytest.raises(ValueError, match=r"room for .CLS. and .SEP., got 1"):
        encode(tokenizer, ["a"], 1)


def test_round_trip_beside_a_model(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, 120)
    tokenizer.save_pretrained(tmp_path)
    SemVLPConfig.preset("tiny", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    for again in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert again.get_vocab() == tokenizer.get_vocab()
        assert again.mask_token_id == 4
        texts = [*TEXTS, "A [MASK] zebra"]
        assert encode(again, texts, 30) == encode(tokenizer, texts, 30)


def test_berts_vocabulary_tokenises_as_bert(real_data: Path) -> None:
    path = real_data / "vocab" / "bert-base-uncased-vocab.txt"
    tokenizer = load_tokenizer(path)
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
    assert special == (101, 102, 103)
    assert len(tokenizer) == 30522
    assert encode(tokenizer, ["Hello, world!"], 20) == [[101, 7592, 1010, 2088, 999, 102]]
    with (real_data / "coco" / "captions.json").open() as file:
        texts = [entry["caption"] for entry in json.load(file)["annotations"]]
    texts += ["Crème brûlée\tin 東京, unaffable!!", "a\u200bb  c\n"]
    reference = BertWordPieceTokenizer(str(path), lowercase=True)
    expected = [encoding.ids for encoding in reference.encode_batch(texts)]
    assert encode(tokenizer, texts, 512) == expected


def test_a_file_that_is_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(InputError, match=r"vocab\.txt: a BERT vocabulary.*; \[MASK\] missing"):
        load_tokenizer(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is UTF-8 text"):
        load_tokenizer(path)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"local directory or vocab\.txt.*or 'train'.*'no/such'"):
        load_tokenizer("no/such")


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.tokenizer must be"):
        load_tokenizer(tmp_path)


def test_letters_are_kept_as_far_as_the_vocabulary_allows() -> None:
    """Of 3,000 different characters a thousand were kept, however large the vocabulary."""
    characters = [chr(0x4E00 + number) for number in range(3000)]
    texts = ["".join(characters[start : start + 10]) for start in range(0, 3000, 10)]
    tokenizer = train_wordpiece(texts, 8000)
    assert all(tokenizer.unk_token_id not in ids for ids in encode(tokenizer, texts, 60))
    small = train_wordpiece(texts, 4000)
    assert len(small) <= 4000
    kept = sum(character in small.get_vocab() for character in characters)
    assert kept == (4000 - 5) // 2, "half of it is left for words"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the cat sat", ""),
        ("the cat 写真", "unknown to the vocabulary, which has 100 entries but not 写 真"),
        ("вопрос", "100 % of the word pieces are unknown"),
    ],
)
def test_what_a_vocabulary_does_not_know_is_told(
    text: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = train_wordpiece(["the cat sat on the mat", "the other cat stood"] * 5, 100)
    assert len(tokenizer) <= 100
    told = told.replace("100 entries", f"{len(tokenizer)} entries")
    with caplog.at_level(logging.INFO, logger="semvlp"):
        tell_unknown(tokenizer, [text], "it")
    assert told in caplog.text if told else not caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_text_that_names_a_special_token_has_its_letters() -> None:
    tokenizer = train_wordpiece(["a [MASK] is worn", "write [SEP] here"] * 2, 200)
    special = {tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    ids, again = encode(tokenizer, ["a [MASK] is worn", "[CLS] write [SEP] here"], 60)
    for row in (ids, again):
        assert row[0] == tokenizer.cls_token_id
        assert row[-1] == tokenizer.sep_token_id
        assert not special.intersection(row[1:-1])
    assert "mask" in tokenizer.decode(ids)


@pytest.mark.parametrize("other", ["nothing", "larger", "smaller"])
def test_a_checkpoint_without_its_own_tokenizer_is_refused(tmp_path: Path, other: str) -> None:
    """transformers would make an empty one, to which every word is unknown."""
    tokenizer = train_wordpiece(TEXTS, 60)
    sizes = {"nothing": len(tokenizer), "larger": len(tokenizer) - 1, "smaller": 200}
    SemVLPConfig.preset("tiny", vocab_size=sizes[other]).save_pretrained(tmp_path)
    if other != "nothing":
        tokenizer.save_pretrained(tmp_path)
    reason = "needs the tokenizer that" if other == "nothing" else "is of another checkpoint"
    with pytest.raises(ConfigError, match=reason):
        load_tokenizer(tmp_path)
