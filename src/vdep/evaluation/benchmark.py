"""One benchmark as a task of lmms-eval: its own task file, prompts and metrics, with documents that stay small."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmms_eval.api.task import ConfigurableTask
from PIL import ImageFile

from ..errors import EvaluationError
from .documents import Document, Documents, PictureFiles, read_parquet
from .tasks import LMMS_EVAL_VERSION

# lmms-eval switches it on for the whole process, and truncated pictures are shown in silence
ImageFile.LOAD_TRUNCATED_IMAGES = False


class BenchmarkTask(ConfigurableTask):
    """lmms-eval's task on ``Documents``. Whatever a task file fails at, the message names the benchmark, the file and the row.

    Args:
        name: of the benchmark, for messages.
        config: from ``tasks.task_config``.
        seed: decides what is drawn where an answer names none of the options (MMMU, MMT).
        joined: from ``tasks.picture_files``.
    """

    def __init__(self, name: str, config: dict[str, Any], seed: int, joined: PictureFiles | None = None) -> None:
        self.name = name
        self.seed = seed
        self._joined = joined
        super().__init__(config=config)
        # filters go through all documents, and need no picture
        self.task_docs = self.eval_docs_no_media

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        assert dataset_kwargs is not None
        split = self.config.test_split
        files = dataset_kwargs["data_files"][split]
        rows = read_parquet(self.name, files, split)
        if self.config.process_docs is not None:
            try:
                rows = self.config.process_docs(rows)
            except (KeyError, ValueError) as error:
                named = ", ".join(Path(file).name for file in files)
                raise EvaluationError(
                    f"{self.name}: {named}: {error.args[0]} The data is another revision; its columns are "
                    f"{', '.join(name for name in rows.column_names if not name.startswith('__'))}."
                ) from error
        self.dataset = {split: Documents(self.name, rows, files, joined=self._joined)}
        self.dataset_no_image = {split: Documents(self.name, rows, files, pictures=False)}

    def doc_to_text(self, doc: Document) -> Any:
        with _named(doc):
            return super().doc_to_text(doc)

    def doc_to_target(self, doc: Document) -> Any:
        with _named(doc):
            return super().doc_to_target(doc)

    def doc_to_visual(self, doc: Document) -> Any:
        with _named(doc):
            return super().doc_to_visual(doc)

    def process_results(self, doc: Document, results: list[Any], full_docs: Any = None) -> Any:
        # Parsers of multiple choice draw a letter where they find none. Seeded here, the draw depends on the question alone,
        # not on how many answers before it named none.
        random.seed(f"{self.seed}/{doc.number}")
        with _named(doc):
            # Without lmms-eval's decorator, which tries everything five times and hides the reason. A copy, because VQA's
            # metrics normalise the answers in the document, which is logged afterwards.
            return ConfigurableTask.process_results.__wrapped__(self, copy.deepcopy(doc), results, full_docs)


@contextmanager
def _named(document: Document) -> Iterator[None]:
    try:
        yield
    except EvaluationError:
        raise
    except Exception as error:
        raise EvaluationError(f"{document.place} {_complaint(document, error)}") from error


def _complaint(document: Document, error: Exception) -> str:
    if isinstance(error, KeyError) and error.args and error.args[0] not in document:
        return (
            f"has no column {error.args[0]!r}, which lmms-eval {LMMS_EVAL_VERSION} reads: the data is another revision. "
            f"Its columns are {', '.join(document)}."
        )
    missing = [name for name, value in document.items() if value is None]
    if isinstance(error, AttributeError | TypeError) and "NoneType" in str(error) and missing:
        return f"has nothing in {', '.join(missing)}: {error}"
    return f"cannot be used: {type(error).__name__}: {error}"
