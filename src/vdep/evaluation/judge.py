"""Who grades free-form answers (MM-Vet): an OpenAI-compatible server, or a comparison of words.

One request and what can come of it; ``grades`` asks many within bounds. Imports neither torch nor lmms-eval, so that grading
is light enough for the machine that has the network. The key is in no message: whatever a server says passes
``Server._public``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ..errors import EvaluationError
from ..study.evaluation import Judge

OPENAI = "https://api.openai.com/v1"
MOST_BYTES = 1 << 20
LEAVE_OUT = "or leave its column out with `judge: null` in the configuration (snakemake --config judge=none ...)"


class NoGrade(Exception):
    """The server answered, and what it said is no grade. Another attempt may help."""


class Busy(Exception):
    """The server could not answer now. ``wait``: the seconds that it asks to wait, where it says so."""

    def __init__(self, message: str, wait: float | None = None, rate_limit: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.rate_limit = rate_limit


class Useless(Exception):
    """The server will not answer any question: a wrong key, an unknown model, a quota that is used up."""


def read_grade(text: str) -> float:
    """The number in [0, 1] that a judge's answer begins with, as lmms-eval reads it.

    Stricter than lmms-eval in one thing: "1 out of 10" is no grade, since it is not 1.0.

    Raises:
        NoGrade: quoting the answer.
    """
    first, _, rest = text.strip().partition(" ")
    try:
        grade = float(first)
    except ValueError:
        grade = -1.0
    if not 0.0 <= grade <= 1.0 or re.search(r"\d", rest):
        shown = text.strip().replace("\n", " ")
        said = f"{shown[:80]!r}{'...' if len(shown) > 80 else ''}" if shown else "nothing"
        raise NoGrade(f"it answered {said} where a number from 0.0 to 1.0 was asked for")
    return grade


def mmvet_instructions() -> str:
    """The head of MM-Vet's grading prompt, read from lmms-eval's file without importing it.

    Raises:
        EvaluationError: where lmms-eval is not installed, or is another version.
    """
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise EvaluationError("lmms-eval is not installed here: `make env` installs it")
    path = Path(spec.submodule_search_locations[0]) / "tasks" / "mmvet" / "utils.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "MM_VET_PROMPT" for t in node.targets):
            return str(ast.literal_eval(node.value))
    raise EvaluationError(f"{path} holds no MM_VET_PROMPT: it is another version of lmms-eval than the pinned one")


class _Bearer(AuthBase):
    """As an ``auth`` and not as a header: requests would replace a header by what a ~/.netrc says of the host."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server that grades. Proxies and certificates are taken from the environment, as requests does."""

    judge: Judge
    url: str
    timeout: float
    key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, judge: Judge, timeout: float) -> Server:
        """As ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` say; a server of one's own may need no key.

        Raises:
            EvaluationError: naming what to set.
        """
        url = os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/") or OPENAI
        key = os.environ.get("OPENAI_API_KEY", "").strip() or None
        if not _is_address(url):
            raise EvaluationError("OPENAI_BASE_URL is no address: it begins with http:// or https:// and usually ends in /v1")
        if key is None and url == OPENAI:
            raise EvaluationError(
                f"MM-Vet's answers are graded by {judge.model}: set OPENAI_API_KEY to a key of OpenAI's, or OPENAI_BASE_URL to "
                f"the address of another OpenAI-compatible server (it usually ends in /v1), {LEAVE_OUT}"
            )
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise EvaluationError("OPENAI_API_KEY holds a space or a character that no key has: set it again")
        return cls(judge, url, timeout, key)

    @property
    def name(self) -> str:
        """For messages: the model and the address, without whatever credentials the address holds."""
        address = urlsplit(self.url)
        return f"{self.judge.model} at {address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"

    def grade(self, prompt: str, temperature: float) -> tuple[float, str]:
        """Ask once: the grade, and the model as the server names it.

        Raises:
            NoGrade, Busy, Useless: as they say.
        """
        body = self._completion(prompt, temperature)
        try:
            choice = body["choices"][0]["message"]
            text = choice.get("content") or ""
            model = body.get("model") or self.judge.model
        except (LookupError, TypeError, AttributeError):
            raise Busy(f"it answers something else than a chat completion: {self._public(str(body))}") from None
        return read_grade(self._without_secrets(str(text))), self._public(str(model))

    def _completion(self, prompt: str, temperature: float) -> Any:
        try:
            with requests.post(
                f"{self.url}/chat/completions",
                json={
                    "model": self.judge.model,
                    "messages": [{"role": "user", "content": prompt}],
                    **_sampling(self.judge, temperature),
                },
                headers=_account(),
                auth=_Bearer(self.key) if self.key else None,
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = b""
                for piece in response.iter_content(1 << 16):
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise Busy("its answer does not end")
        except requests.Timeout:
            raise Busy(f"no answer within {self.timeout:g} seconds") from None
        except requests.RequestException as error:
            raise Busy(f"it cannot be reached: {self._public(str(error))}") from None
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        self._check_status(response, body, content)
        if body is None:
            raise Busy(f"it answers something else than JSON: {self._public(content.decode(errors='replace'))}")
        return body

    def _check_status(self, response: requests.Response, body: Any, content: bytes) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        error = body.get("error") if isinstance(body, dict) else None
        code = str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
        told = error.get("message") if isinstance(error, dict) else error
        message = f"HTTP {status}: {self._public(str(told or content.decode(errors='replace')) or 'no reason given')}"
        if status in (401, 403):
            # the message may quote a part of the key
            raise Useless(f"HTTP {status}: it refuses the key in OPENAI_API_KEY" + ("" if self.key else ", which is not set"))
        if status == 404 or 300 <= status < 400:
            raise Useless(f"{message} - is the model's name right, and OPENAI_BASE_URL (it usually ends in /v1)?")
        if "insufficient_quota" in code:
            raise Useless(f"{message} - the account's quota is used up")
        if status in (408, 409, 429) or status >= 500:
            raise Busy(message, _seconds(response.headers.get("Retry-After")), rate_limit=status == 429)
        raise NoGrade(message)

    def _public(self, text: str, length: int = 200) -> str:
        """A server's words on one short line, without secrets."""
        text = " ".join(self._without_secrets(text).split())
        return text if len(text) <= length else f"{text[:length]}..."

    def _without_secrets(self, text: str) -> str:
        for secret in (self.key, urlsplit(self.url).password):
            if secret:
                text = text.replace(secret, "***")
        return text


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _sampling(judge: Judge, temperature: float) -> dict[str, float]:
    """As lmms-eval's llm_judge does it: models that think take no temperature, and another name for the length."""
    if judge.model.startswith(("gpt-5", "o1", "o3", "o4")):
        return {"max_completion_tokens": judge.max_tokens}
    return {"max_tokens": judge.max_tokens, "temperature": temperature}


def _account() -> dict[str, str]:
    """Who pays, where a key belongs to several: the variables of OpenAI's own client."""
    headers = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
    return {header: os.environ[variable] for header, variable in headers.items() if os.environ.get(variable)}


def _seconds(value: str | None) -> float | None:
    """What a Retry-After says, in seconds; a date is not read."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
