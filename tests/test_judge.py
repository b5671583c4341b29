"""The judge of free-form answers: the local one's grades, and that a run without its judge never starts."""

from __future__ import annotations

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests

from vdep.errors import EvaluationError
from vdep.evaluation.judge import exact_match_grade, judge_environment
from vdep.settings import Judge

PROMPT = (
    "Compare the ground truth and prediction.\n\nQuestion | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n"
)
SECRET = "sk-not-to-be-shown"


@pytest.mark.parametrize(
    ("truth", "prediction", "grade"),
    [
        ("red", "red", "1.0"),
        ("red", "Red.", "1.0"),
        ("red", "green", "0.0"),
        ("red", "", "0.0"),
        ("red<OR>crimson", "crimson", "1.0"),
        ("red<AND>7", "a red 7", "1.0"),
        ("red<AND>7", "a red 8", "0.0"),
    ],
)
def test_the_local_judge_compares_words(truth: str, prediction: str, grade: str) -> None:
    assert exact_match_grade(f"{PROMPT}What is it? | {truth} | {prediction} |") == grade


def test_the_local_judge_speaks_the_protocol_and_ends() -> None:
    with judge_environment(Judge(kind="exact_match", model="exact_match")) as name:
        url = os.environ["OPENAI_API_URL"]
        body = {"model": "m", "messages": [{"role": "user", "content": f"{PROMPT}Which? | 4 | 4 |"}]}
        answer = requests.post(f"{url}/chat/completions", json=body, timeout=5).json()
        assert answer["choices"][0]["message"]["content"] == "1.0"
        assert name == "exact_match (local)"
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{url}/chat/completions", json=body, timeout=5)


def test_a_judge_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VDEP_JUDGE_URL", raising=False)
    with pytest.raises(EvaluationError, match="set VDEP_JUDGE_URL"), judge_environment(Judge(kind="openai", model="gpt")):
        pass


def test_a_judge_that_cannot_be_reached_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("VDEP_JUDGE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("VDEP_JUDGE_KEY", SECRET)
    with pytest.raises(EvaluationError, match="does not answer") as error, judge_environment(Judge(kind="openai", model="g")):
        pass
    assert SECRET not in str(error.value)


class Odd(BaseHTTPRequestHandler):
    answer = (200, b"<html>proxy</html>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("answer", [(200, b"<html>proxy</html>"), (200, b'{"error": "quota"}'), (401, b"{}"), (503, b"")])
def test_a_judge_that_answers_nonsense_stops_the_run(answer: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "answer", answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VDEP_JUDGE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
    monkeypatch.setenv("VDEP_JUDGE_KEY", SECRET)
    try:
        with (
            pytest.raises(EvaluationError, match="does not answer") as error,
            judge_environment(Judge(kind="openai", model="g")),
        ):
            pass
        assert SECRET not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()
