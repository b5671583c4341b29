"""A hub on this machine that takes uploads as the real one does, and refuses when it is told to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" * 6 + "beef"


class Hub(ThreadingHTTPServer):
    """``files``: what was committed, by path. ``faults``: part of a path -> the status it is answered with, or "cut"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.uploaded: dict[str, bytes] = {}
        self.faults: dict[str, int | str] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.private: bool | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.do_POST()

    def answer(self, body: bytes) -> None:
        hub = self.server
        hub.requests.append(f"{self.command} {self.path}")
        if not self.path.startswith("/store/"):
            hub.tokens.add(self.headers.get("Authorization"))
        for part, fault in hub.faults.items():
            if part in self.path:
                if fault == "cut":
                    self.close_connection = True
                    self.connection.shutdown(2)
                else:
                    self.send({"error": "no"}, int(fault))
                return
        if self.path == "/api/repos/create":
            hub.private = json.loads(body).get("visibility") == "private" or json.loads(body).get("private")
            self.send({"url": f"{hub.url}/me/tiny"})
        elif self.path == "/api/validate-yaml":
            self.send({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            mode = {f["path"]: "lfs" if f["path"].endswith(".safetensors") else "regular" for f in files}
            self.send({"files": [{"path": path, "uploadMode": mode[path], "shouldIgnore": False} for path in mode]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            wanted = [o if o["oid"] in hub.uploaded else {**o, "actions": {"upload": self.place(o["oid"])}} for o in objects]
            self.send({"transfer": "basic", "objects": wanted})
        elif self.path.startswith("/store/"):
            hub.uploaded[self.path.rpartition("/")[2].partition("?")[0]] = body
            self.send({})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.uploaded[value["oid"]]
            self.send({"commitUrl": f"{hub.url}/me/tiny/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": ""})
        elif self.path.startswith("/api/models/me/tiny"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in hub.files.items()]
            info = {"id": "me/tiny", "sha": COMMIT, "siblings": [{"rfilename": n} for n in hub.files], "tags": []}
            info["private"] = bool(hub.private)
            self.send(tree if "/tree/" in self.path else info)
        else:
            self.send({"error": self.path}, 404)

    def place(self, oid: str) -> dict[str, Any]:
        return {"href": f"{self.server.url}/store/{oid}?signature=s", "header": {}}

    def send(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def local_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


if __name__ == "__main__":
    import time

    with local_hub() as running:
        print(running.url, flush=True)
        while True:
            time.sleep(1)
            print(running.requests[-12:], sorted(running.files), flush=True)
