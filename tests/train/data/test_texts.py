"""Texts of whole stores: what is counted, what is tokenised once."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.model.tokenizer import encode, train_wordpiece
from semvlp.shards.open import open_store
from semvlp.shards.record import Question, Texts
from semvlp.shards.stores.store import Store
from semvlp.train.data import texts as text_cache
from semvlp.train.data.texts import (
    TextCache,
    check_texts,
    masking_vocabulary,
    most_frequent_answers,
    read_sample,
    sentences,
)


@pytest.fixture(scope="module")
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


def ask(**answers: float) -> Texts:
    return Texts(questions=(Question(question="?", answers=answers),))


def test_answers_by_frequency_then_alphabet() -> None:
    texts = [ask(b=1.0, a=0.3), ask(c=1.0, b=0.3), ask(a=1.0), ask(zero=0.0)]
    assert most_frequent_answers(texts, 10) == ["a", "b", "c"]
    assert most_frequent_answers(reversed(texts), 2) == ["a", "b"]


def test_all_texts_of_all_stores(store: Store) -> None:
    found = list(sentences(read_sample([store, store])))
    assert len(found) == 2 * 3 * len(store)
    assert found[: len(found) // 2] == found[len(found) // 2 :]


def test_of_many_texts_those_of_evenly_spaced_images_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "SAMPLED_TEXTS", 3 * len(store))
    every = list(read_sample([store]))
    assert every == [store.texts(index) for index in range(len(store))]
    assert list(read_sample([store, store])) == 2 * every[::2]
    monkeypatch.setattr(text_cache, "SAMPLED_TEXTS", 1)
    assert len(list(read_sample([store]))) == 1


def test_texts_are_checked_without_reading_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(store: Store, index: int) -> Texts:
        raise AssertionError(f"image {index} was read")

    monkeypatch.setattr(Store, "texts", read)
    check_texts([store])


def test_images_without_texts_are_counted(
    store: Store,
    write_store: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open_store(write_store(tmp_path / "bare", range(3), with_texts=False)) as bare:
        with caplog.at_level(logging.WARNING):
            check_texts([store, bare])
        assert "3 of 27 images have no text" in caplog.text
        with pytest.raises(InputError, match=r"none of the 3 images .* semvlp shards join"):
            check_texts([bare])


def test_each_distinct_text_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_wordpiece(["a red circle", "a blue square"], 100)
    seen: list[str] = []

    def counting(tokenizer: object, texts: list[str], max_length: int) -> list[list[int]]:
        seen.extend(texts)
        return encode(tokenizer, texts, max_length)  # type: ignore[arg-type]

    monkeypatch.setattr(text_cache, "encode", counting)
    cache = TextCache(tokenizer, 4)
    texts = ["a red circle", "a blue square", "a red circle"]
    for _ in range(2):
        found = cache(texts)
        assert [ids.tolist() for ids in found] == encode(tokenizer, texts, 4)
    assert seen == ["a red circle", "a blue square"]


def test_a_full_cache_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "LARGEST", 1)
    tokenizer = train_wordpiece(["a red circle"], 100)
    cache = TextCache(tokenizer, 9)
    for text in ("red", "circle", "a", "red"):
        assert cache([text])[0].tolist() == encode(tokenizer, [text], 9)[0]
    assert len(cache._known) <= 2


def test_replacements_are_never_special() -> None:
    tokenizer = train_wordpiece(["a red circle"], 100)
    vocabulary = masking_vocabulary(tokenizer)
    special = np.isin(vocabulary.ordinary_ids, tokenizer.all_special_ids)
    assert not special.any()
    assert len(vocabulary.ordinary_ids) == len(tokenizer) - 5
    assert vocabulary.mask_id == tokenizer.mask_token_id
