"""The pictures of a benchmark: encoded until they are needed, decoded ahead of the model, and dropped after it.

Decoded, two megapixels take 8 MB, and a benchmark has up to 14,000 of them. So a question keeps only where its pictures lie;
a few batches of them exist at a time.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import EvaluationError

log = logging.getLogger(__name__)

BATCHES_AHEAD = 2
_DAMAGES = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_lock = Lock()
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Picture:
    """An encoded picture in the place of a PIL image.

    lmms-eval's task files take a document's pictures and convert them to RGB, all of them before the first question is
    answered. Here that only passes them on; ``open`` decodes. Whatever else a task file wants of an image it gets from
    the decoded one.
    """

    def __init__(self, data: bytes, place: str) -> None:
        self.data = data
        self.place = place

    @cached_property
    def identity(self) -> str:
        """The SHA-256 of the file: another file, another identity."""
        return hashlib.sha256(self.data).hexdigest()

    def convert(self, mode: str) -> Any:
        return self if mode == "RGB" else self.open().convert(mode)

    def open(self) -> Image.Image:
        """The picture in RGB, as ``datasets`` decodes it for lmms-eval: turned upright where a camera says so.

        Of a truncated picture lmms-eval shows what there is, and so does this, but not in silence.

        Raises:
            EvaluationError: for a file that is no picture, or nothing of one.
        """
        try:
            return self._decode()
        except UnidentifiedImageError as error:
            raise EvaluationError(f"{self.place}: the picture is in no format that can be read") from error
        except _DAMAGES as error:
            damage = error
        try:
            with _lenient():
                image = self._decode()
        except _DAMAGES as error:
            raise EvaluationError(f"{self.place}: the picture is damaged: {error}") from error
        log.warning("%s: the picture is damaged or truncated (%s); what there is of it is shown", self.place, damage)
        return image

    def _decode(self) -> Image.Image:
        from datasets import Image as ImageFeature

        return ImageFeature().decode_example({"bytes": self.data, "path": None}).convert("RGB")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.open(), name)


@contextmanager
def _lenient() -> Iterator[None]:
    # A switch of the whole library. A picture that another thread decodes meanwhile has the same pixels, and if it is
    # truncated too, goes without a warning.
    with _lock:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def identity(picture: Picture | Image.Image) -> str:
    """What tells a picture from all others: the hash of its file, or of its pixels where a task file made it."""
    if isinstance(picture, Picture):
        return picture.identity
    # as it is shown: two palettes may give the same indices other colours
    shown = picture.convert("RGB")
    return hashlib.sha256(f"{shown.size} ".encode() + shown.tobytes()).hexdigest()


def requested(request: Any, task_dict: Any) -> list[Any]:
    """The pictures of a request of lmms-eval's, as its task file chooses them; encoded, if the documents are ``Documents``."""
    _, _, doc_to_visual, doc_id, task, split = request.args
    return list(doc_to_visual(task_dict[task][split][doc_id]) or [])


def decoded(picture: Picture | Image.Image) -> Image.Image:
    return picture.open() if isinstance(picture, Picture) else picture.convert("RGB")


def prefetched(
    batches: Iterable[list[_In]], load: Callable[[_In], _Out], threads: int
) -> Iterator[tuple[list[_In], list[_Out]]]:
    """Every batch with what ``load`` makes of its members, in order, loaded ahead by ``threads`` threads (0: when its turn
    comes).

    No more than ``BATCHES_AHEAD`` batches are loaded, or being loaded, beside the one that was handed out. Decoding and
    resizing release the interpreter's lock, so threads suffice.
    """
    if not threads:
        for batch in batches:
            yield batch, [load(member) for member in batch]
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    waiting: deque[tuple[list[_In], list[Future[_Out]]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(load, member) for member in batch]))
            if len(waiting) > BATCHES_AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(batch: list[_In], loading: list[Future[_Out]]) -> tuple[list[_In], list[_Out]]:
    return batch, [future.result() for future in loading]
