"""Who may ask: the page itself and programs of this machine's owner, not another site in the same browser.

A page of another site can send requests to this one (CSRF), and can make its own name lead here (DNS
rebinding). The name that was asked for, the page that asks and, beyond this machine, a token decide; answers
may not be read, framed or run by others.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_ASK = (
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Token</title><main><h1>This page asks for its token</h1><p>It stands in the address that the "
    'terminal printed.</p><form method="get" action="/"><label>Token <input name="token" type="password" '
    'autocomplete="current-password" required autofocus></label> <button>Open</button></form></main></html>'
)


@dataclass(frozen=True)
class Gate:
    """What a request has to bring.

    Attributes:
        names: Host names that are this page's; addresses of this machine's interfaces count as well where
            ``any_address`` is set.
        any_address: The page listens beyond this machine: a numeric address cannot be another site's name.
        token: Asked for; None asks for none.
    """

    names: frozenset[str]
    any_address: bool
    token: str | None

    def refusal(self, headers: Headers, *, opens: bool) -> str | None:
        """Returns why a request is refused; None where it may pass, but for the token.

        Args:
            headers: Of the request.
            opens: Whether it opens the page itself, to which any site may link.
        """
        if len(headers.getlist("host")) != 1 or not self._is_own(headers["host"]):
            return "this page is not known by that name; --allow_host adds one"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            return "another site's page asked"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opens:
            return "another site's page asked"
        return None

    def knows(self, headers: Headers, cookie: str) -> bool:
        """Tells whether a request brings the token, in a header or in the page's cookie."""
        if self.token is None:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(cookie)
        except CookieError:
            held = None
        given = bearer if kind.lower() == "bearer" else held.value if held else ""
        return self.is_token(given)

    def is_token(self, given: str) -> bool:
        """Compares in a time that does not depend on how much is right."""
        return self.token is None or hmac.compare_digest(given.encode(), self.token.encode())

    def _is_own(self, host: str) -> bool:
        name = _without_port(host)
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


class GuardedApp:
    """Passes requests that may pass and puts the page's headers on every answer.

    Args:
        app: What answers.
        gate: Who may ask.
        message_bytes: Most bytes of a request's body; routes that take files count for themselves.
        file_bytes: Most bytes of a request that carries files.
        port: Names the cookie, since browsers keep cookies by host alone.
    """

    def __init__(self, app: ASGIApp, gate: Gate, *, message_bytes: int, file_bytes: int, port: int) -> None:
        self._app, self._gate = app, gate
        self._message_bytes, self._file_bytes = message_bytes, file_bytes
        self._cookie = f"effort_page_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is spoken here

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        most = self._file_bytes if carries_files(scope) else self._message_bytes
        await self._app(scope, _bounded(receive, most), answer)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        opens = scope["method"] == "GET" and scope["path"] == "/"
        reason = self._gate.refusal(headers, opens=opens)
        if reason is not None:
            return JSONResponse({"detail": reason}, status_code=403)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[-1] if opens else None
        if asked is not None and self._gate.is_token(asked):
            # The token leaves the address at once, where histories and screens would keep it.
            response: Response = RedirectResponse("/", status_code=303)
            if self._gate.token is not None:
                response.set_cookie(self._cookie, asked, httponly=True, samesite="lax", path="/")
            return response
        if not self._gate.knows(headers, self._cookie):
            if opens:
                return HTMLResponse(_ASK, status_code=401)
            return JSONResponse({"detail": "the token is missing or wrong"}, status_code=401)
        length = headers.get("content-length", "0")
        most = self._file_bytes if carries_files(scope) else self._message_bytes
        if not length.isdecimal() or int(length) > most:
            return JSONResponse({"detail": f"at most {most} bytes"}, status_code=413)
        return None


class TooMuch(HTTPException):
    """A body without a length grew over its bound."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"at most {most} bytes")


def carries_files(scope: Scope) -> bool:
    """Tells whether a request's body is files."""
    return scope["path"] == "/predict" or (scope["method"] == "PUT" and scope["path"].endswith("/file"))


def own_names(address: str, more: Iterable[str] = (), *, machine: str = "") -> frozenset[str]:
    """Returns the names under which a page that listens on an address is asked for.

    Args:
        address: What it listens on.
        more: Names that the user allows.
        machine: Name of this machine; counts where the page listens beyond it.
    """
    names = {_without_port(name) for name in more}
    if is_local(address):
        return frozenset(names | {"127.0.0.1", "localhost", "::1"})
    found = {address, machine, f"{machine}.local", "localhost"} if machine else {address, "localhost"}
    return frozenset(names | {name.lower() for name in found})


def is_local(address: str) -> bool:
    """Tells whether only programs of this machine can reach an address."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise TooMuch(most)
        return message

    return bounded
