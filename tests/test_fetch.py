"""Downloads against a server on this machine that behaves as badly as real ones: what arrives is whole, or an error."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vdep.artifacts import AssetManifest
from vdep.assets import fetch as fetch_module
from vdep.assets.fetch import fetch
from vdep.assets.lock import write_lock
from vdep.errors import AssetError
from vdep.files import folder_digest
from vdep.study.settings import HubAsset, ShippedAsset, UrlAsset

CONTENT = bytes(range(256)) * 4000
COMMIT = "c0ffee" * 6 + "beef"
REPO = {"config.json": b"{}", "model.safetensors": CONTENT, "tf_model.h5": b"unwanted"}


class Server(ThreadingHTTPServer):
    """``faults`` are taken one a request: what goes wrong with it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.gated = False
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path.startswith("/api/"):
            self.hub_api()
        elif "/resolve/" in self.path:
            self.file(REPO.get(self.path.rpartition("/")[2]), body, hub=True)
        else:
            self.file(CONTENT, body)

    def hub_api(self) -> None:
        if self.server.gated:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "/nothing" in self.path:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            files = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in REPO.items()]
            self.send(200, json.dumps(files).encode())
        else:
            siblings = [{"rfilename": name} for name in REPO]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self.send(200, json.dumps(info).encode())

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def file(self, content: bytes | None, body: bool, hub: bool = False) -> None:
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        fault = self.server.faults.pop(0) if self.server.faults and body else ""
        if fault.startswith("status "):
            self.send(int(fault.split()[1]), b"not now")
            return
        start = 0
        if (wanted := self.headers.get("Range")) and fault != "ignores the range":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self.send(416, b"")
                return
        part = content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if fault == "another range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        if hub:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if body:
            if fault.startswith("cut at "):
                self.wfile.write(part[: int(fault.split()[2])])
                self.close_connection = True
                self.connection.close()
            else:
                self.wfile.write(part[::-1] if fault == "other bytes" else part)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    started = Server()
    thread = threading.Thread(target=started.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(fetch_module.time, "sleep", lambda seconds: None)
    yield started
    started.shutdown()
    started.server_close()
    thread.join()


def url_asset(server: Server, **recorded: Any) -> UrlAsset:
    return UrlAsset(kind="url", url=f"{server.url}/data.zip", **recorded)


def get(asset: Any, folder: Path) -> dict[str, Any]:
    """The manifest."""
    return fetch("tiny", asset, folder, Path.cwd()).content


def test_a_file_arrives_and_its_manifest_says_what_it_is(server: Server, tmp_path: Path) -> None:
    manifest = get(url_asset(server), tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert manifest["files"] == [{"path": "data.zip", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}]
    assert AssetManifest.open(tmp_path / "manifest.json").content == manifest
    get(url_asset(server), tmp_path)
    assert len(server.requests) == 1, "what is there is not fetched again"


@pytest.mark.parametrize("at", [0, 1, 1000, 1_000_000, len(CONTENT) - 1])
def test_a_cut_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path, at: int) -> None:
    server.faults = [f"cut at {at}"]
    get(url_asset(server), tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    ranges = [r for _, _, r in server.requests]
    assert len(ranges) == 2
    assert ranges[1] is None or int(ranges[1].removeprefix("bytes=").rstrip("-")) <= at


@pytest.mark.parametrize(
    "faults",
    [
        ["status 500", "status 503"],
        ["status 429"],
        ["cut at 5000", "ignores the range"],
        ["cut at 5000", "another range"],
        ["cut at 5000", "cut at 5000", "cut at 5000"],
    ],
)
def test_a_server_with_bad_moments_is_asked_again(server: Server, tmp_path: Path, faults: list[str]) -> None:
    server.faults = list(faults)
    get(url_asset(server), tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


def test_a_download_that_was_killed_goes_on_in_the_next_process(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".data.zip.part").write_bytes(CONTENT[:70_000])
    get(url_asset(server), tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.requests[0][2] == "bytes=70000-"


def test_a_server_that_stays_broken_is_an_error_that_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut at 400000"] + ["status 500"] * 10
    with pytest.raises(AssetError, match=r"tiny: .*data\.zip failed 5 times: .*Start again; it resumes"):
        get(url_asset(server), tmp_path)
    assert not (tmp_path / "data.zip").exists()
    assert not (tmp_path / "manifest.json").exists()
    assert 0 < (tmp_path / ".data.zip.part").stat().st_size <= 400_000


def test_the_right_size_with_other_bytes_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    recorded = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    server.faults = ["other bytes"]
    with pytest.raises(AssetError, match=r"sent a file with SHA-256 .*, recorded is .*It was deleted"):
        get(url_asset(server, **recorded), tmp_path)
    assert not (tmp_path / "data.zip").exists()
    get(url_asset(server, **recorded), tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


def test_another_size_than_recorded_is_refused_before_it_is_downloaded(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="has 1024000 bytes, recorded are 5"):
        get(url_asset(server, size=5), tmp_path)


def test_no_room_is_said_before_anything_is_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(AssetError, match=r"1024000 bytes are to come and .* has no room"):
        get(url_asset(server), tmp_path)


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return server


def hub_asset(repo: str = "org/tiny") -> HubAsset:
    return HubAsset(kind="hub", repo=repo, files=("*.json", "*.safetensors"))


def test_a_hub_repository_arrives_with_the_commit_that_was_resolved(hub: Server, tmp_path: Path) -> None:
    manifest = get(hub_asset(), tmp_path)
    assert manifest["revision"] == COMMIT
    assert {f["path"] for f in manifest["files"]} == {"config.json", "model.safetensors"}, "only the wanted files"
    assert (tmp_path / "model.safetensors").read_bytes() == CONTENT
    assert AssetManifest.open(tmp_path / "manifest.json").content == manifest


def test_a_mirror_is_asked_instead_and_is_sent_no_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asset = hub_asset().model_copy(update={"mirror": server.url})
    assert {f["path"] for f in get(asset, tmp_path / "hub")["files"]} == {"config.json", "model.safetensors"}
    elsewhere = UrlAsset(kind="url", url="http://127.0.0.1:9/data.zip", mirror=f"{server.url}/copies/1234")
    assert [file["path"] for file in get(elsewhere, tmp_path / "url")["files"]] == ["data.zip"], "named as at its own address"
    assert len(server.requests) > 3
    assert server.tokens == {None}


def test_a_gated_repository_says_what_to_do(hub: Server, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(AssetError, match=r"org/tiny is gated\. Accept its terms on the hub and set HF_TOKEN"):
        get(hub_asset(), tmp_path)


def test_an_unknown_repository_is_named(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="the hub has no model org/nothing"):
        get(hub_asset("org/nothing"), tmp_path)


def test_a_shipped_folder_is_checked_against_its_digest(tmp_path: Path) -> None:
    source = tmp_path / "root" / "weights"
    source.mkdir(parents=True)
    (source / "a.bin").write_bytes(b"abc")
    asset = ShippedAsset(kind="shipped", path="weights", revision=folder_digest(source))
    manifest = fetch("tiny", asset, tmp_path / "out", tmp_path / "root")
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"abc"
    assert manifest.revision == asset.revision
    (source / "a.bin").write_bytes(b"abd")
    with pytest.raises(AssetError, match=r"has the digest .*, the configuration says"):
        fetch("tiny", asset, tmp_path / "out", tmp_path / "root")


def test_the_lock_records_what_was_downloaded(server: Server, tmp_path: Path) -> None:
    import yaml

    fetch("archive", url_asset(server), tmp_path / "assets" / "archive", tmp_path)
    lock = tmp_path / "lock.yaml"
    write_lock(tmp_path, lock)
    recorded = yaml.safe_load(lock.read_text())["assets"]["archive"]
    assert recorded == {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    assert str(tmp_path) not in lock.read_text()


def test_an_asset_that_changed_on_disk_is_noticed(server: Server, tmp_path: Path) -> None:
    get(url_asset(server), tmp_path)
    (tmp_path / "data.zip").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(AssetError, match=r"data\.zip is not the file that manifest\.json describes"):
        AssetManifest.open(tmp_path / "manifest.json")
