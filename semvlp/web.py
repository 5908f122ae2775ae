"""What a web server gives at an address, and where it may send us on."""

import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from semvlp.addresses import refuse_plain_http
from semvlp.errors import InputError

# A server that sends nothing for so long has failed.
STALL_SECONDS = 60.0
_MIB = 2**20


def is_web_address(name: object) -> bool:
    """Tell whether a name is one that `read` takes."""
    return isinstance(name, str) and name.lower().startswith(("https://", "http://"))


def read(url: str, *, most: int, seconds: float) -> bytes:
    """Return what an address gives.

    Args:
        most: bytes that are taken at most.
        seconds: how long it may take in all.

    Raises:
        ConfigError: it is plain HTTP to another machine, or leads there, and nobody has allowed
            that (`addresses.http_allowed`).
        InputError: it cannot be had, is larger, takes longer, or leads elsewhere than to the web.
    """
    end, data = time.monotonic() + seconds, bytearray()
    try:
        refuse_plain_http(url)
        with opened(url, stall=seconds) as response:
            for piece in pieces(response):
                data += piece
                if len(data) > most:
                    raise InputError(f"{url} gives more than {most // _MIB} MiB")
                if time.monotonic() > end:
                    raise TimeoutError(f"not finished in {seconds:g} seconds")
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{url} cannot be downloaded ({error})") from error
    return bytes(data)


def opened(url: str, *, anywhere: bool = False, stall: float = STALL_SECONDS) -> HTTPResponse:
    """Ask for an address and return the answer, to be closed.

    Args:
        anywhere: follow the server to any address, as when what comes is told by its hash.
        stall: seconds in which something must come.

    Raises:
        ConfigError: the server sends us on to an address of plain HTTP.
        HTTPException, OSError, ValueError: no answer, or this is no address.
    """
    opener = build_opener(*([] if anywhere else [_Redirects]))
    request = Request(url, headers={"User-Agent": "semvlp"})
    response: HTTPResponse = opener.open(request, timeout=stall)
    return response


def announced(response: HTTPResponse) -> int | None:
    """Return the bytes that a server says it will send, if it does."""
    length = response.headers["Content-Length"]
    return int(length) if length else None


def pieces(response: HTTPResponse) -> Iterator[bytes]:
    """Yield what a server sends, as it comes.

    Raises:
        OSError: fewer bytes than it announced: the connection was cut.
    """
    size, expected = 0, announced(response)
    while piece := response.read1(_MIB):
        size += len(piece)
        yield piece
    if expected is not None and size != expected:
        raise OSError(f"{size} bytes came of the {expected} announced")


class _Redirects(HTTPRedirectHandler):
    """Follows a server to another address only where that could have been asked for."""

    def redirect_request(self, *given: Any) -> Request | None:
        request, *_, url = given
        refuse_plain_http(url)
        if urlsplit(url).scheme not in ("https", request.type):
            raise InputError(f"{request.full_url} leads to {url}, which is not taken from there")
        return super().redirect_request(*given)
