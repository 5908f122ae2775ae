"""Tar shards to LMDB and back, texts onto images already extracted; the regions keep each byte."""

import os.path
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError, InputError
from semvlp.names import StoreFormat
from semvlp.progress import Progress
from semvlp.shards.codec import decode_entry, replace_texts, texts_of
from semvlp.shards.dataset.hashes import files_sha256
from semvlp.shards.dataset.manifest import Base, Manifest
from semvlp.shards.dataset.refusals import check_refused, printable, reasons_of
from semvlp.shards.keys import Keys
from semvlp.shards.open import open_store
from semvlp.shards.record import Question, Texts
from semvlp.shards.stores.store import Members, Store
from semvlp.shards.texts.texts import read_matched
from semvlp.shards.writer import Writer, open_writer


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReport:
    """The outcome of `join`."""

    out: Path
    images: int
    """Images of the data set."""
    matched: int
    """Images that the text files speak of."""
    captions: int
    """Captions of the new data set, old ones included."""
    questions: int
    """Questions of the new data set, old ones included."""
    unmatched: Sequence[str]
    """Names in the text files that no image has."""
    manifest: Manifest

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        names = ("images", "matched", "captions", "questions")
        counts = {name: getattr(self, name) for name in names}
        return {"out": str(self.out), **counts, "unmatched": tuple(self.unmatched)}

    def sentence(self) -> str:
        """Return the report as one sentence."""
        lost = "".join(
            f"; {len(self.unmatched)} names fit no image, first {name!r}"
            for name in self.unmatched[:1]
        )
        refused = self.manifest.refused
        why = f"; {len(refused)} refused: {reasons_of(refused)}" if refused else ""
        base = self.manifest.base
        where = f"; the regions stay in {os.path.normpath(self.out / base.path)}" if base else ""
        return (
            f"{self.out} holds {self.images} images with {self.captions} captions and "
            f"{self.questions} questions{where}{lost}{why}."
        )


def convert(
    src: Path,
    dst: Path,
    *,
    to: StoreFormat,
    overwrite: bool = False,
    max_bad: float | None = None,
) -> Manifest:
    """Write the data set `src` once more in another store; both members of a sample keep each byte.

    Started again after an interruption it goes on where it stopped.

    Args:
        max_bad: the fraction of damaged images that may be left out, each with a line of
            refused.jsonl; None makes the first one an error.

    Raises:
        InputError: `src` is damaged.
        ConfigError: `dst` is `src` or its base, or holds another data set.
        TooManyRefused: finished, but more than `max_bad` were left out.
    """
    with open_store(src) as store:
        refuse_same(store, dst)
        plan = store.manifest.plan(store.image_ids)
        with open_writer(dst, plan, format=to, overwrite=overwrite) as writer:
            copy(store, writer, "converting", lambda members: members, skip=max_bad is not None)
            manifest = writer.finish()
        check_copied(store, dst, manifest, max_bad)
    return manifest


def join(
    shards: Path,
    texts: Sequence[Path],
    out: Path,
    *,
    only_matched: bool = False,
    refer: bool = False,
    overwrite: bool = False,
    max_bad: float | None = None,
) -> JoinReport:
    """Copy the data set `shards` with the texts of the files added to those it has.

    A text that an image has already is not added again, so joining twice changes nothing. The new
    data set has the profile and the store of the old one. With `only_matched` it has only the
    images that the files speak of: what to pre-train on of features extracted for all splits.
    With `refer` it holds the texts alone and reads the regions where they are, in `shards` or where
    those read them themselves; joining reads none, so damaged ones are not noticed. `max_bad` is
    that of `convert`.

    Raises:
        InputError: `shards` or a text file is damaged, a name in it fits several images, or none
            fits one.
        ConfigError: `out` is `shards` or its base, or holds another data set.
        TooManyRefused: finished, but more than `max_bad` damaged images were left out.
    """
    with open_store(shards) as store, ExitStack() as stack:
        refuse_same(store, out)
        matched, unmatched = read_matched(texts, store.image_ids)
        stack.enter_context(matched)
        plan = store.manifest.plan(store.image_ids)
        plan = replace(
            plan,
            image_ids=Keys(filter(matched.__contains__, plan.image_ids))
            if only_matched
            else plan.image_ids,
            texts_sha256=files_sha256(texts, after=plan.texts_sha256),
            base=_base_of(store, out) if refer else None,
        )
        kind = "reference" if refer else store.base.manifest.store
        with open_writer(out, plan, format=kind, overwrite=overwrite) as writer:
            change = partial(_with_texts, matched)
            copy(store, writer, "joining", change, skip=max_bad is not None, refer=refer)
            manifest = writer.finish()
        check_copied(store, out, manifest, max_bad)
    return JoinReport(
        out=out,
        images=manifest.counts["samples"],
        matched=len(matched),
        captions=manifest.counts["captions"],
        questions=manifest.counts["questions"],
        unmatched=unmatched,
        manifest=manifest,
    )


def refuse_same(store: Store, dst: Path) -> None:
    """Refuse to write over what is read.

    Raises:
        ConfigError: the store, or its base, is in `dst`.
    """
    if dst.resolve() in (store.path.resolve(), store.base.path.resolve()):
        raise ConfigError(f"{dst} must not be the data set that is read; name another directory")


def check_copied(store: Store, out: Path, manifest: Manifest, max_bad: float | None) -> None:
    """Check what was left out of a copy, see `convert`; what its source refused has been told.

    Raises:
        TooManyRefused: more than `max_bad` was.
    """
    if max_bad is not None:
        before = {refusal.image_id for refusal in store.manifest.refused}
        check_refused(out, manifest, max_bad, before=before)


def copy(
    store: Store,
    writer: Writer,
    what: str,
    change: Callable[[Members], Members],
    *,
    skip: bool = False,
    refer: bool = False,
) -> None:
    """Write what is pending, the members of each sample passed through `change`.

    With `refer` the JSON alone is read and written.

    Raises:
        InputError: a sample is damaged, unless `skip` makes it a refused one.
    """
    refused = {refusal.image_id: refusal for refusal in store.manifest.refused}
    pending = writer.pending
    done = len(writer.plan.image_ids) - len(pending)
    total = len(writer.plan.image_ids)
    with Progress(what, total=total, unit="images", done=done) as progress:
        for image_id in pending:
            if image_id in refused:
                writer.refuse(image_id, refused[image_id].file, refused[image_id].reason)
            else:
                index = store.index_of(image_id)
                try:
                    if refer:
                        writer.write_encoded(image_id, *change((store.checked_entry(index), b"")))
                    else:
                        writer.write_members(*change(store.members(index)))
                except InputError as error:
                    if not skip:
                        raise
                    writer.refuse(image_id, store.path, str(error))
            progress.advance()


def _base_of(store: Store, out: Path) -> Base:
    """Return what a data set in `out` says of the regions that a store reads.

    Raises:
        ConfigError: JSON cannot hold the path.
    """
    base, here = store.base, out.resolve()
    path = str(base.source.resolve())
    if os.path.commonpath([path, here]) != here.anchor:
        path = os.path.relpath(path, here)
    if printable(path) != path:
        raise ConfigError(f"{printable(path)} is no UTF-8 and cannot be referred to; rename it")
    return Base(path=path, images=len(base), dataset_sha256=base.manifest.dataset_sha256)


def _with_texts(texts: Mapping[str, Texts], members: Members) -> Members:
    text, blob = members
    entry = decode_entry(text)
    added = texts.get(entry["image_id"])
    if added is None:
        return members
    return replace_texts(text, _merged(texts_of(entry), added)), blob


def _merged(old: Texts, new: Texts) -> Texts:
    """Join old texts and new ones; a question asked again takes the place of the old one."""
    asked_again = {_identity(question) for question in new.questions}
    return Texts(
        captions=old.captions + tuple(c for c in new.captions if c not in old.captions),
        questions=tuple(q for q in old.questions if _identity(q) not in asked_again)
        + new.questions,
    )


def _identity(question: Question) -> str:
    """Return the id, a number in one file and a string in another, or the text if there is none."""
    if question.question_id is None:
        return question.question
    return f"#{question.question_id}"
