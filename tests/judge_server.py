"""An OpenAI-compatible judge on loopback that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from vdep_demo.judge import exact_match

SERVED_MODEL = "judge-2026-01-01"


@dataclass(frozen=True)
class Reply:
    """``body`` None: the connection stays open and nothing comes; ``endless``: a byte comes now and then."""

    body: bytes | None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    endless: bool = False


def says(text: str | None) -> Reply:
    """A chat completion with this answer."""
    message = {"role": "assistant", "content": text}
    return Reply(json.dumps({"model": SERVED_MODEL, "choices": [{"message": message}]}).encode())


def fails(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(body, status, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


NOTHING = Reply(None)
ENDLESS = Reply(b"", headers=(("Content-Length", "1000000"),), endless=True)


def grades(prompt: str) -> Reply:
    return says(str(exact_match(prompt)))


class JudgeServer:
    """Use as a context manager.

    Args:
        behave: from a prompt and its number (0, 1, ...) to a reply.
    """

    def __init__(self, behave: Callable[[str, int], Reply]) -> None:
        self.behave = behave
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                judge._handle(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.path = "/v1/chat/completions"
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        assert handler.path == self.path
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self._lock:
            number = len(self.prompts)
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.keys.add(handler.headers.get("Authorization"))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        reply = self.behave(prompt, number)
        with self._lock:
            self.at_once -= 1
        if reply.body is None:
            self._closing.wait(60)
            return
        handler.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | dict(reply.headers)).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body)
        while reply.endless and not self._closing.wait(0.05):
            with contextlib.suppress(OSError):
                handler.wfile.write(b" ")
