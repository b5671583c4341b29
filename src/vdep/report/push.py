"""``vdep push``: a checkpoint as a repository of a hub, with its card and what is recorded about it.

Everything goes up in one commit: a hub shows all of it or nothing, and the same command goes on after an interruption. What
is sent is what was trained (``FinishedStage.open``). The token stays in huggingface_hub, and no message is made of a request.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..artifacts import FINAL, FinishedStage, Scores
from ..errors import HubError
from ..study.recipe import canonical_json
from .checkpoints import Checkpoint
from .model_card import model_card, verdicts_of

log = logging.getLogger(__name__)

CARD = "README.md"
OURS = "vdep"
"""The folder of what is recorded."""


@dataclass(frozen=True)
class Package:
    """Path in the repository -> a file, or content."""

    card: str
    files: dict[str, Path | bytes]

    def listing(self) -> list[tuple[str, int]]:
        """(path, bytes) of each, the card first."""
        sizes = {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}
        return sorted(sizes.items(), key=lambda entry: (entry[0] != CARD, entry[0]))


def package(checkpoint: Checkpoint, tables: Path, licence: str | None) -> Package:
    """What is published of a checkpoint.

    Args:
        tables: where ``comparison.json`` lies, if it was built.

    Raises:
        CheckpointError: where the weights are not those that were trained.
        EvaluationError: where scores are not what was written.
    """
    opened = FinishedStage.open(checkpoint.done)
    found, left_out = checkpoint.scores()
    for line in left_out:
        log.warning("not published: %s", line)
    scores = {benchmark: Scores.read(path) for benchmark, path in found.items()}
    card = model_card(checkpoint, scores, verdicts_of(checkpoint, tables), licence)
    files: dict[str, Path | bytes] = {name: opened.weights / name for name in opened.files}
    files |= {f"{OURS}/{FINAL}": opened.weights / FINAL, CARD: card.encode()}
    files |= {f"{OURS}/recipe.{stage}.json": canonical_json(recipe).encode() for stage, recipe in checkpoint.recipes.items()}
    files |= {f"{OURS}/scores/{benchmark}.json": path for benchmark, path in found.items()}
    return Package(card, files)


def endpoint() -> str:
    """The hub that ``HF_ENDPOINT`` names, without what a URL may say of a user."""
    named = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        parts = urlsplit(named)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise HubError(f"HF_ENDPOINT does not name a hub: {named.rpartition('@')[2]}") from None
    return f"{parts.scheme}://{parts.hostname}{port}"


def push(checkpoint: Checkpoint, content: Package, repo: str, *, private: bool, update: bool) -> str:
    """Publish; returns the URL of the commit.

    Args:
        repo: ``USER/NAME``.
        update: whether a repository that holds something else gets another commit.

    Raises:
        HubError: where the hub refuses or cannot be reached, saying which, and what to do.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    _without_signatures()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    operations = [CommitOperationAdd(name, f if isinstance(f, bytes) else str(f)) for name, f in content.files.items()]
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        # of one that is there already the hub ignores the wish
        if private and not api.repo_info(repo).private:
            raise HubError(
                f"{repo} on {endpoint()} is there already, and public: name another with --repo, or leave --private out"
            )
        there = set(api.list_repo_files(repo)) - {".gitattributes"}
        if there and not update:
            raise HubError(
                f"{repo} on {endpoint()} holds {len(there)} files already: add a commit to it with --update, or name another "
                "repository with --repo"
            )
        message = f"{checkpoint.name}, weights {checkpoint.stage.digest[:16]}"
        return str(api.create_commit(repo, operations, commit_message=message).commit_url)
    except HFValidationError as error:
        raise HubError(f"--repo {repo}: {error}") from None
    except (httpx2.HTTPError, HfHubHTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise HubError(f"{endpoint()} {_problem(error, repo)}") from None


def _without_signatures() -> None:
    """Addresses to which files are sent are signed: whoever has one may write there, and so none is logged."""

    def cut(record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"\?\S+", "?...", re.sub(r"//[^/@\s]+@", "//", record.getMessage())), ()
        return True

    for name in ("httpx2", "huggingface_hub.utils._http"):
        logger = logging.getLogger(name)
        logger.filters = [cut]  # not one more in every call


def _problem(error: BaseException, repo: str) -> str:
    """What went wrong, of an error that uploading may have wrapped in another."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    while error.__cause__ is not None and not isinstance(error, HfHubHTTPError | httpx2.HTTPError):
        error = error.__cause__
    if isinstance(error, HfHubHTTPError):
        return _refusal(error.response.status_code, repo)
    if isinstance(error, ValueError | KeyError):
        return f"answers as no hub does ({error}): check HF_ENDPOINT"
    return (
        f"could not be reached, or the connection was cut ({type(error).__name__}): nothing was published, unless all that was "
        f"lost is the answer to the last step (see {endpoint()}/{repo}). Call the same command again; what the hub has of the "
        "weights is not sent twice"
    )


def _refusal(status: int, repo: str) -> str:
    known = {
        401: "wants a token: set HF_TOKEN to one that may write (or call `hf auth login`)",
        403: f"does not let this token write to {repo}: it should be one with write access, of a member of that namespace",
        404: f"does not know {repo}, or shows it to no one without a token: check --repo and HF_TOKEN",
        409: f"says that {repo} was changed at the same time (409): look at it, and call the same command again",
        413: "refuses files of this size (413)",
        429: "takes no more requests for now (429): wait, and call the same command again",
    }
    return known.get(status, f"answered {status}: nothing was published; call the same command again later")
