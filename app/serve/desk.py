"""The routes of the server's API, and what they share.

The event loop reads and writes; one thread has the network, and whoever asks waits for a turn.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from semvlp.app.assistant import MAX_TEXT, Assistant
from semvlp.app.search import PhotoSearch
from semvlp.app.serve import described
from semvlp.app.serve.album import Album, Given, GivenRegions, Vocabulary
from semvlp.errors import ConfigError, InputError
from semvlp.names import EVAL_MODES, EvalMode
from semvlp.shards.record import Regions

MAX_TEXTS, MAX_FIELDS, MAX_TOP = 64, 80, 100
# UTF-8 takes four bytes at most for a character; what is longer is not even read.
MAX_FIELD_BYTES = 4 * MAX_TEXT + 1024
PATIENCE = 3
"""Seconds in which a connection says whether it is still there."""


class Desk:
    """The routes, and what they share: checkpoints by name, and the photographs of a store."""

    def __init__(
        self,
        assistants: Mapping[str, Assistant],
        album: Album | None = None,
        finder: PhotoSearch | None = None,
    ) -> None:
        self.assistants, self.album, self.finder = dict(assistants), album, finder
        self.answered = 0
        self._given = GivenRegions()
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        # A photograph that is decoded takes three bytes a pixel.
        self._pictures = ThreadPoolExecutor(2, thread_name_prefix="pictures")

    async def about(self, request: Request) -> Response:
        """Tell which checkpoints and how many photographs there are."""
        return JSONResponse(
            {
                "checkpoints": [described.checkpoint(*item) for item in self.assistants.items()],
                "photos": len(self.album.store) if self.album else 0,
                "search": self.finder is not None,
            }
        )

    async def ask(self, request: Request) -> Response:
        """Answer one text about one photograph, or about two."""
        question = await _Question.read(request, self.assistants)
        return await self._in_turn(request, lambda: self._reply(question))

    async def match(self, request: Request) -> Response:
        """Tell how probably each of several texts and a photograph belong together."""
        question = await _Question.read(request, self.assistants)
        return await self._in_turn(request, lambda: self._matches(question))

    async def search(self, request: Request) -> Response:
        """Find the photographs of the store that fit a text best."""
        if not self.finder:
            raise HTTPException(404, "there is no store, or no checkpoint that could search it")
        find = self.finder.search
        async with request.form(max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            text, top = str(form.get("text", "")), _number(form.get("top"), "top", 1, MAX_TOP)
        return await self._in_turn(
            request,
            lambda: {
                "photos": [
                    {**self._listed(hit.id), "probability": hit.probability}
                    for hit in find(text, top=top or 12)
                ]
            },
        )

    async def photos(self, request: Request) -> Response:
        """List the photographs of the store, some from `start` on."""
        ids = self.album.store.image_ids if self.album else ()
        start = _number(request.query_params.get("start"), "start", 0, len(ids)) or 0
        count = _number(request.query_params.get("count"), "count", 1, MAX_TOP) or 24
        return JSONResponse(
            {"total": len(ids), "photos": [self._listed(one) for one in ids[start : start + count]]}
        )

    async def picture(self, request: Request) -> Response:
        """Send a photograph of the store as a JPEG, `size` small or large."""
        if not self.album:
            raise HTTPException(404, "there is no store of photographs")
        size = request.query_params.get("size", "large")
        image_id = request.path_params["image_id"]
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._pictures, self.album.picture, image_id, size)
        return Response(data, media_type="image/jpeg")

    async def _in_turn(self, request: Request, answer: Callable[[], dict[str, Any]]) -> Response:
        """Run `answer` in the network's thread, unless whoever asked has gone away meanwhile."""
        loop = asyncio.get_running_loop()

        def turn() -> dict[str, Any]:
            gone = asyncio.run_coroutine_threadsafe(request.is_disconnected(), loop)
            if gone.result(timeout=PATIENCE):
                raise ClientDisconnect
            return answer()

        values = await loop.run_in_executor(self._network, turn)
        self.answered += 1
        return JSONResponse(values)

    def _reply(self, question: "_Question") -> dict[str, Any]:
        if len(question.texts) != 1:
            raise InputError(f"one text is answered at a time, got {len(question.texts)}")
        seen = [self._seen(question.assistant, photo) for photo in question.photos]
        regions = [regions for regions, _ in seen]
        given = question.assistant.reply(
            regions, question.texts[0], top=question.top, mode=question.mode
        )
        vocabularies = [vocabulary for _, vocabulary in seen]
        return described.reply(given, vocabularies, layer=question.layer, head=question.head)

    def _matches(self, question: "_Question") -> dict[str, Any]:
        if len(question.photos) != 1 or not question.texts:
            raise InputError("texts are matched with one photograph, and there must be some")
        regions, _ = self._seen(question.assistant, question.photos[0])
        chances = question.assistant.match(regions, question.texts, mode=question.mode)
        return {
            "matches": [
                {"text": text, "probability": chance}
                for text, chance in zip(question.texts, chances, strict=True)
            ],
            "mode": question.mode or question.assistant.mode,
        }

    def _seen(self, assistant: Assistant, photo: Given | str) -> tuple[Regions, Vocabulary]:
        """Return the regions of a photograph that was given or of one of the store, by its id."""
        if isinstance(photo, Given):
            regions, detector = self._given(assistant, photo), assistant.eyes.detector
            return regions, Vocabulary(detector.object_labels, detector.attribute_labels)
        if not self.album:
            raise InputError(f"there is no store that could hold the photograph {photo!r}")
        return self.album.store.regions(photo), self.album.vocabulary

    def _listed(self, image_id: str) -> dict[str, Any]:
        assert self.album is not None
        return {"id": image_id, "picture": self.album.has_picture(image_id)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """The fields of a form."""

    assistant: Assistant
    photos: list[Given | str]
    """What was sent, or ids of the store, in order."""
    texts: list[str]
    mode: EvalMode | None
    top: int
    layer: int | None
    head: int | None

    @classmethod
    async def read(cls, request: Request, assistants: Mapping[str, Assistant]) -> "_Question":
        """Read a form.

        Raises:
            ConfigError: a field that says what cannot be.
            HTTPException: no form, or one that is too large.
            ClientDisconnect: it ended in the middle.
        """
        async with request.form(
            max_files=2, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        ) as form:
            photos = [
                Given(photo.filename or "photo", await photo.read())
                if isinstance(photo, UploadFile)
                else photo
                for photo in form.getlist("photo")
            ]
            return cls(photos=photos, **_options(form, assistants))


def _options(form: FormData, assistants: Mapping[str, Assistant]) -> dict[str, Any]:
    """Return the fields of a form other than the photographs."""
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    name = fields.get("checkpoint") or next(iter(assistants))
    mode = fields.get("mode") or None
    if name not in assistants or mode not in (None, *EVAL_MODES):
        raise ConfigError(
            f"the checkpoint must be one of {', '.join(assistants)} and the mode one of "
            f"{', '.join(EVAL_MODES)}, got {name!r:.80} and {mode!r:.80}"
        )
    texts = [text for text in form.getlist("text") if isinstance(text, str)]
    if len(texts) > MAX_TEXTS:
        raise InputError(f"at most {MAX_TEXTS} texts go into one request, got {len(texts)}")
    return {
        "assistant": assistants[name],
        "texts": texts,
        "mode": mode,
        "top": _number(fields.get("top"), "top", 1, MAX_TOP) or 5,
        "layer": _number(fields.get("layer"), "layer", 1, 1000),
        "head": _number(fields.get("head"), "head", 1, 1000),
    }


def _number(text: UploadFile | str | None, name: str, least: int, most: int) -> int | None:
    """Return a whole number that somebody wrote; None for nothing.

    Raises:
        ConfigError: it is no number from `least` to `most`.
    """
    if not text:
        return None
    # int() reads other digits too, and takes long for many.
    if isinstance(text, str) and re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
        return int(text)
    raise ConfigError(f"{name} must be a number from {least} to {most}, got {text!r:.80}")
