"""`semvlp serve`: a page to ask checkpoints on, and the JSON API that it speaks to."""

import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from semvlp.addresses import default_checkpoint
from semvlp.app import ask
from semvlp.app.assistant import Assistant, load
from semvlp.app.search import PhotoSearch
from semvlp.app.serve.album import Album
from semvlp.app.serve.desk import Desk
from semvlp.app.serve.gate import Gate, refused
from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.eval.network import check_regions

PAGE = Path(__file__).with_name("page")
LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 64
SECONDS_TO_FINISH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeReport:
    """What a server that was stopped has done."""

    url: str
    answered: int

    def values(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"url": self.url, "answered": self.answered}

    def sentence(self) -> str:
        """Write it in one sentence."""
        return f"{self.answered} questions were answered at {self.url}."


def serve(
    checkpoints: Sequence[str],
    *,
    shards: str | None,
    images: Path | None,
    host: str | None,
    port: int,
    device: str,
    detector: str | None,
    allow_other_regions: bool,
    announce: Callable[[str], object],
) -> ServeReport:
    """Serve checkpoints until Ctrl-C.

    Args:
        checkpoints: as `load` takes them; without one it is that of `semvlp ask`.
        host: the address to listen on instead of loopback; every request then needs a token.
        announce: called with the address of the page, token and all, once it can be opened.

    Raises:
        ConfigError: no checkpoint where none is named, or the address cannot be had.
        InputError: no such checkpoint or store, or one of other regions than the other.
    """
    token = secrets.token_urlsafe(24) if host else None
    with _listening(host or LOOPBACK, port) as listener, ExitStack() as opened:
        names = list(checkpoints) or [
            str(default_checkpoint("vqa", own=ask.OWN, of_demo=ask.OF_DEMO))
        ]
        assistants = {name: load(name, device=device, detector=detector) for name in names}
        album = finder = None
        if shards:
            finder = _finder(assistants, shards, images, allow_other_regions)
            album = Album(finder.store, finder.files) if finder else Album.opened(shards, images)
            opened.enter_context(closing(album))
            for name, assistant in assistants.items():
                config = assistant.network.model.config
                check_regions(config, name, album.store, allow_other=allow_other_regions)
        desk, url = Desk(assistants, album, finder), _url(listener)
        announce(f"{url}?token={token}" if token else url)
        _run(application(desk, token), listener)
    return ServeReport(url=url, answered=desk.answered)


def application(desk: Desk, token: str | None = None) -> ASGIApp:
    """Return the server as an ASGI application; see `Gate` for the token."""
    inside = Starlette(
        routes=[*routes(desk), Mount("/", StaticFiles(directory=PAGE, html=True))],
        exception_handlers={
            ConfigError: lambda _, error: refused(400, str(error)),
            InputError: lambda _, error: refused(422, str(error)),
            SemVLPError: lambda _, error: refused(500, str(error)),
            HTTPException: lambda _, error: refused(error.status_code, error.detail),
            # Nobody reads this one.
            ClientDisconnect: lambda _, error: refused(400, "the connection was closed"),
            Exception: lambda _, error: refused(500, f"{type(error).__name__}; the log says where"),
        },
    )
    return Gate(inside, token)


def routes(desk: Desk) -> list[Route]:
    """Return the routes of the API; `page/openapi.json` describes them."""
    return [
        Route("/about", desk.about),
        Route("/ask", desk.ask, methods=["POST"]),
        Route("/match", desk.match, methods=["POST"]),
        Route("/search", desk.search, methods=["POST"]),
        Route("/photos", desk.photos),
        Route("/photos/{image_id}", desk.picture),
    ]


def _run(served: ASGIApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C, which is how a server ends."""
    config = uvicorn.Config(
        served,
        lifespan="off",
        ws="none",
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _finder(
    assistants: Mapping[str, Assistant], shards: str, images: Path | None, allow_other: bool
) -> PhotoSearch | None:
    """Return a search with the first checkpoint that can match texts; None where none can.

    One of pre-training answers questions here, and is opened once more with its matching head.
    """
    for name, assistant in assistants.items():
        network = assistant.network
        if network.zero_shot:
            assistant = load(name, mode="two", device=network.device, zero_shot="retrieval")
        if assistant.task == "retrieval":
            return PhotoSearch(assistant, shards, images=images, allow_other_regions=allow_other)
    return None


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket at an address, before anything is loaded that takes long.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"port {port} of {host} cannot be listened on: {error}; name another by --port"
        ) from error
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
