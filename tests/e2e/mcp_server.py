"""An MCP server out of the standard library with one tool, `look_up`, over standard input.

It answers with what its environment has under WORD, so that a test sees who was given what; over
HTTP (`serving`) with the header Authorization of who asks.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOL = {
    "name": "look_up",
    "description": "Look a word up.",
    "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


def answered(message: dict[str, Any], word: str) -> dict[str, Any] | None:
    """The answer to one message; None to what wants none."""
    if "id" not in message or "method" not in message:
        return None
    result = result_of(message["method"], message.get("params") or {}, word)
    none = {"error": {"code": -32601, "message": "no"}}
    said = {"result": result} if result is not None else none
    return {"jsonrpc": "2.0", "id": message["id"], **said}


def result_of(method: str, asked: dict[str, object], word: str) -> dict[str, object] | None:
    if method == "initialize":
        return {
            "protocolVersion": asked.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "words", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        said = {"type": "text", "text": f"it means {word[::-1]}"}
        return {"content": [said], "isError": False}
    return {} if method == "ping" else None


class Handler(BaseHTTPRequestHandler):
    """One answer for each request, and no stream."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        with contextlib.suppress(ConnectionError):
            length = int(self.headers.get("content-length") or 0)
            message = json.loads(self.rfile.read(length) or b"{}")
            found = answered(message, self.headers.get("authorization", "nothing"))
            self._send(200 if found else 202, json.dumps(found).encode() if found else b"")

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._send(405, b"")

    do_DELETE = do_GET  # noqa: N815 - the name is the library's

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


class Server(ThreadingHTTPServer):
    """A program that is ended hangs up in the middle, which is nothing to tell of."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of the same server over HTTP."""
    with Server(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.shutdown()
            serving.join()


def main() -> None:
    # How long it takes to be there, in seconds.
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
    word = os.environ.get("WORD", "nothing")
    for line in sys.stdin:
        if found := answered(json.loads(line), word):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
