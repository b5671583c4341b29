"""Who grades free-form answers (MM-Vet): an OpenAI-compatible server, or a small local one that compares strings.

lmms-eval reads the address, the key and the model from the environment when its task module is imported, and gives every
sample 0 points when the judge cannot be reached. So the judge is asked once before anything is evaluated.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from ..errors import EvaluationError
from ..settings import Judge


def exact_match_grade(prompt: str) -> str:
    """The last row of MM-Vet's prompt is ``question | ground truth | prediction |``: 1.0 where the two are the same words.

    ``<AND>`` and ``<OR>`` in the ground truth mean what they mean to MM-Vet.
    """
    # a prediction may have several lines
    cells = [cell.strip().lower().rstrip(".") for cell in prompt.rstrip().rstrip("|").split("|")]
    truth, prediction = cells[-2], cells[-1]
    for alternative in truth.split("<or>"):
        parts = [part.strip() for part in alternative.split("<and>")]
        if all(part == prediction or (len(parts) > 1 and part in prediction) for part in parts):
            return "1.0"
    return "0.0"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        answer = {
            "model": body.get("model", "exact_match"),
            "choices": [{"message": {"role": "assistant", "content": exact_match_grade(text)}}],
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def judge_environment(judge: Judge | None) -> Iterator[str | None]:
    """Make the judge reachable for lmms-eval while the block runs; yields its name for the tables.

    Raises:
        EvaluationError: where no address or key is given, or the server does not answer.
    """
    if judge is None:
        yield None
        return
    if judge.kind == "exact_match":
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            _announce(f"http://127.0.0.1:{server.server_address[1]}/v1", "local", judge.model)
            yield f"{judge.model} (local)"
        finally:
            server.shutdown()
            server.server_close()
        return
    url, key = os.environ.get(judge.url_variable), os.environ.get(judge.key_variable)
    if not url or not key:
        raise EvaluationError(
            f"this benchmark is graded by {judge.model}: set {judge.url_variable} to the base address of an OpenAI-compatible "
            f"server (it ends in /v1) and {judge.key_variable} to its key"
        )
    _check_reachable(url, key, judge.model)
    _announce(url, key, judge.model)
    yield judge.model


def _announce(url: str, key: str, model: str) -> None:
    os.environ.update({"OPENAI_API_URL": url, "OPENAI_API_KEY": key, "MODEL_VERSION": model, "API_TYPE": "openai"})


def _check_reachable(url: str, key: str, model: str) -> None:
    try:
        response = requests.post(
            f"{url.rstrip('/')}/chat/completions",
            headers={"Authorization": f"Bearer {key}"},
            json={"model": model, "messages": [{"role": "user", "content": "Say 1.0"}], "max_tokens": 4},
            timeout=60,
        )
        response.raise_for_status()
        response.json()["choices"][0]["message"]["content"]
    except (OSError, ValueError, LookupError) as error:
        # the key is never part of the message
        raise EvaluationError(f"the judge {model} at {url} does not answer as it should: {error}") from error
