"""Someone who has a page of the app open: Streamlit's own messages over a WebSocket, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60.0


class Page:
    """A page that was asked for."""

    def __init__(self, socket: ClientConnection, page: str, parameters: dict[str, str]) -> None:
        self._socket = socket
        self._page = page
        self._query = urlencode(parameters)
        self._send()

    def press(self, key: str) -> None:
        """Click the button with this key as soon as the page has it. Raises AssertionError if the page shows an exception."""
        while True:
            message = ForwardMsg.FromString(self._socket.recv(timeout=PATIENCE_S))
            if message.WhichOneof("type") == "delta" and message.delta.WhichOneof("type") == "new_element":
                element = message.delta.new_element
                assert element.WhichOneof("type") != "exception", element.exception.message
                if element.WhichOneof("type") == "button" and element.button.id.endswith(f"-{key}"):
                    return self._send(element.button.id)

    def _send(self, pressed: str = "") -> None:
        message = BackMsg()
        message.rerun_script.query_string = self._query
        message.rerun_script.page_name = self._page
        if pressed:
            message.rerun_script.widget_states.widgets.add(id=pressed, trigger_value=True)
        self._socket.send(message.SerializeToString())


@contextmanager
def visiting(address: str, page: str, **parameters: str) -> Iterator[Page]:
    """A page of the app at `address` for as long as it is needed."""
    with connect(
        f"ws{address.removeprefix('http')}/_stcore/stream", subprotocols=["streamlit"], origin=address, max_size=None, close_timeout=1, open_timeout=PATIENCE_S
    ) as socket:
        yield Page(socket, page, parameters)
