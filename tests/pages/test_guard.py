import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from pages.components import guard
from pages.components.guard import Guard, host_name, is_loopback, without_token


async def page(request) -> PlainTextResponse:
    return PlainTextResponse("the page")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("open")
    await websocket.close()


def client(token: str = "", host: str = "127.0.0.1:8501") -> TestClient:
    routes = [Route("/{path:path}", page), WebSocketRoute("/ws", socket)]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, hosts={"127.0.0.1", "localhost"}, token=token)])
    return TestClient(app, base_url=f"http://{host}", follow_redirects=False)


def test_only_known_hosts_are_answered() -> None:
    assert client().get("/").text == "the page"
    assert client(host="localhost").get("/run?run=x").status_code == 200
    refused = client(host="evil.example").get("/")
    assert refused.status_code == 421 and "does not answer to that host name" in refused.text


def test_the_socket_is_guarded_too() -> None:
    with client().websocket_connect("ws://127.0.0.1/ws") as open_socket:
        assert open_socket.receive_text() == "open"
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("ws://evil.example/ws"):
        pass
    with pytest.raises(WebSocketDisconnect), client(token="secret").websocket_connect("ws://127.0.0.1/ws"):
        pass


def test_every_answer_has_the_headers() -> None:
    headers = client().get("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"] and "unsafe-eval" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_the_token_opens_once_and_then_the_cookie_does() -> None:
    visitor = client(token="secret")
    assert visitor.get("/").status_code == 403
    assert visitor.get("/?token=wrong").status_code == 403
    let_in = visitor.get("/run?run=a%20b&token=secret")
    assert let_in.status_code == 303 and let_in.headers["location"] == "/run?run=a+b"
    assert "HttpOnly" in let_in.headers["set-cookie"] and "SameSite=strict" in let_in.headers["set-cookie"]
    assert visitor.get("/").text == "the page"
    with visitor.websocket_connect("ws://127.0.0.1/ws", headers={"cookie": "groupscope_token=secret"}) as open_socket:
        assert open_socket.receive_text() == "open"


def test_the_redirect_stays_on_this_host() -> None:
    assert without_token({"path": "//evil.example/x", "query_string": b"token=secret&run=a"}) == "/evil.example/x?run=a"


def test_health_needs_no_token() -> None:
    assert client(token="secret").get("/_stcore/health").status_code == 200


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("", False), ("192.168.1.4", False)]
)
def test_loopback(address: str, here: bool) -> None:
    assert is_loopback(address) is here


@pytest.mark.parametrize(("header", "name"), [("LocalHost:80", "localhost"), ("[::1]:8501", "::1"), ("127.0.0.1", "127.0.0.1"), ("", "")])
def test_host_names(header: str, name: str) -> None:
    assert host_name(header) == name


def test_no_start_beyond_this_machine_without_a_token(monkeypatch) -> None:
    monkeypatch.setattr(guard, "listens_on_loopback", lambda: False)
    monkeypatch.delenv("GROUPSCOPE_TOKEN", raising=False)
    with pytest.raises(SystemExit, match="only with a token"):
        guard.settings()
    monkeypatch.setenv("GROUPSCOPE_TOKEN", "secret")
    assert guard.settings()["token"] == "secret"
