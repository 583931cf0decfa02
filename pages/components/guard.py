"""Who may talk to the app: host names, an optional token, and the headers that keep a page's content in its place.

Pure ASGI, because it must see the WebSocket too. No Streamlit beyond reading two settings.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Collection
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, parse_qsl, urlencode

import streamlit as st
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "groupscope_token"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
UNGUARDED_PATHS = frozenset({"/_stcore/health"})
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; frame-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Middleware: only `hosts` may be asked for (a foreign name is DNS rebinding), and only with `token` if one is set.

    The token comes once in the address (`/?token=...`), then lives in a cookie that scripts cannot read.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        if host_name(headers.get("host", "")) not in self.hosts:
            return await refuse(scope, receive, send, 421, "this Groupscope does not answer to that host name; open it as http://127.0.0.1")
        if self.token and scope["path"] not in UNGUARDED_PATHS and not same(cookie_token(headers), self.token):
            if scope["type"] == "http" and same(asked_token(scope), self.token):
                return await let_in(scope, receive, send, self.token)
            return await refuse(scope, receive, send, 403, "this Groupscope needs its token; open the address printed at start, /?token=...")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def settings() -> dict[str, object]:
    """The guard's arguments: hosts from server.allowedHosts, the token from GROUPSCOPE_TOKEN.

    Raises SystemExit when the app would listen beyond this machine without a token.
    """
    token = os.environ.get("GROUPSCOPE_TOKEN", "")
    if not listens_on_loopback() and not token:
        raise SystemExit("Groupscope can start programs, so it listens beyond 127.0.0.1 only with a token; set GROUPSCOPE_TOKEN or drop --server.address")
    return {"hosts": frozenset(st.get_option("server.allowedHosts") or LOOPBACK_NAMES), "token": token}


def listens_on_loopback() -> bool:
    """Whether only this machine can reach the app; launching is allowed only then."""
    return is_loopback(st.get_option("server.address") or "")


def is_loopback(address: str) -> bool:
    """Whether `address` (a name or an IP; empty means every interface) is this machine only."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """The name in a Host header without its port: `[::1]:8501` is `::1`."""
    if host.startswith("["):
        return host[1:].split("]")[0].lower()
    return host.rsplit(":", 1)[0].lower()


def same(given: str, expected: str) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def cookie_token(headers: dict[str, str]) -> str:
    morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    return morsel.value if morsel else ""


def asked_token(scope: Scope) -> str:
    return parse_qs(scope.get("query_string", b"").decode("latin1")).get("token", [""])[0]


def without_token(scope: Scope) -> str:
    """The path and query of a request less its token; always a place on this host (`//elsewhere` would not be)."""
    rest = [(name, value) for name, value in parse_qsl(scope.get("query_string", b"").decode("latin1")) if name != "token"]
    return "/" + scope["path"].lstrip("/") + (f"?{urlencode(rest)}" if rest else "")


async def let_in(scope: Scope, receive: Receive, send: Send, token: str) -> None:
    """Give the browser its cookie and send it to the same address without the token."""
    response = RedirectResponse(without_token(scope), status_code=303, headers={"referrer-policy": "no-referrer", "cache-control": "no-store"})
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
    await response(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 1008})
    await PlainTextResponse(sentence + "\n", status_code=status)(scope, receive, send)
