"""The gate of the server: which requests it lets in, and the headers of all that goes out.

A page of any site can make a browser send requests to this machine, and a name of any site can be
made to mean this machine (DNS rebinding). What such a request cannot choose is its `Host` and its
`Origin`, which the browser writes, and the token, which it does not know.
"""

import hmac
import re

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 32 * 2**20
"""Of a request, with all its photographs."""
COOKIE = "semvlp_token"
# Scripts, styles and requests from here alone; photographs also from the page itself (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class Gate:
    """A layer around the server that answers itself what it does not let in.

    Args:
        token: what every request must have as `?token=` of the page, as the cookie that the page
            then gets, or as `Authorization: Bearer`; without one only loopback names are served.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it, with `HEADERS` on either answer."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self._refusal(request)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if self._token and not refusal and "token" in request.query_params:
                    cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
                    headers.append("Set-Cookie", cookie)
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> JSONResponse | None:
        headers = request.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None and not _LOOPBACK.fullmatch(host):
            return refused(403, "this server is called 127.0.0.1 or localhost, nothing else")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return refused(403, "only this server's own page may ask it, and this is another site")
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and headers.get("sec-fetch-mode") != "navigate":
            return refused(403, "only this server's own page may ask it, and this is another site")
        if self._token is not None and not _is_one(self._token, _given(request)):
            return refused(401, "open the address that `semvlp serve` has printed, token and all")
        return None if request.method in ("GET", "HEAD") else _refused_for_size(request)


def refused(status: int, message: str) -> JSONResponse:
    """Return an error as all of the server's are."""
    return JSONResponse({"error": message}, status_code=status)


def _given(request: Request) -> list[str]:
    """Return the tokens of a request."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    return [
        request.query_params.get("token", ""),
        request.cookies.get(COOKIE, ""),
        bearer if scheme.lower() == "bearer" else "",
    ]


def _is_one(token: str, given: list[str]) -> bool:
    """Tell whether the token is among those given, in a time that does not depend on them."""
    return any([hmac.compare_digest(token.encode(), one.encode()) for one in given])


def _refused_for_size(request: Request) -> JSONResponse | None:
    length = request.headers.get("content-length", "")
    # Where there is an encoding the length means nothing.
    if "transfer-encoding" in request.headers or not re.fullmatch(r"\d{1,18}", length):
        return refused(411, "a request must say how long it is (Content-Length)")
    if int(length) > MAX_BYTES:
        return refused(
            413, f"a request may have {MAX_BYTES >> 20} MiB, photographs included; make it smaller"
        )
    return None
