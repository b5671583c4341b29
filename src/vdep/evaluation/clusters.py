"""Which questions an interval resamples together: the clusters that a benchmark names in its configuration.

Questions about one picture stand or fall together, so an interval that drew them one by one would be too narrow; a field
that says something else (MM-Vet's ``image_source`` names a picture's origin) makes it nonsense. Nothing is guessed: a field
that is not there, or that is the same in every document, ends the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import EvaluationError
from .pictures import identity

PICTURE = "picture"
"""All questions on the same picture, told by its own bytes."""

QUESTION = "question"
"""Each question by itself, with its rotations in MMBench and its twin in MME."""


def check_documents(name: str, cluster: str, documents: Any) -> None:
    """Before anything is asked: the documents (``documents.Documents``) have the field, with more than one value.

    Raises:
        EvaluationError: naming the benchmark, the field, and the fields there are or the row that has nothing in it.
    """
    if cluster in (PICTURE, QUESTION):
        return
    if cluster not in documents.column_names:
        raise _missing(name, cluster, documents.column_names)
    values = documents[cluster]
    for number, value in enumerate(values):
        if value is None or value == "":
            raise _empty(name, cluster, getattr(documents[number], "place", f"{name}: document {number}"))
    _require_several(name, cluster, values)


def cluster_keys(name: str, cluster: str, samples: Sequence[Mapping[str, Any]], task: Any) -> list[str] | None:
    """For each of lmms-eval's logged samples, what it is resampled with; None where each question stands for itself.

    Args:
        task: lmms-eval's task, whose documents have the pictures.

    Raises:
        EvaluationError: where a document lacks the field or the picture, or where all questions would be one cluster.
    """
    if cluster == QUESTION:
        return None
    keys = []
    for sample in samples:
        document = sample.get("doc") or {}
        if cluster != PICTURE and cluster not in document:
            raise _missing(name, cluster, document)
        key = _pictures(task, sample["doc_id"]) if cluster == PICTURE else document[cluster]
        if key is None or key == "":
            raise _empty(name, cluster, f"{name}: document {sample['doc_id']}")
        keys.append(str(key))
    _require_several(name, cluster, keys)
    return keys


def _pictures(task: Any, number: int) -> str:
    """The same for documents with the same pictures in the same order; empty for one that has none."""
    return " ".join(identity(picture) for picture in task.doc_to_visual(task.eval_docs[number]) or [])


def _missing(name: str, cluster: str, fields: Any) -> EvaluationError:
    return EvaluationError(
        f"{name}: the documents have no field {cluster!r}, by which benchmarks.{name}.cluster resamples "
        f"(they have: {', '.join(map(str, fields))}; {PICTURE} and {QUESTION} always work)"
    )


def _empty(name: str, cluster: str, place: str) -> EvaluationError:
    return EvaluationError(f"{place} has nothing in {cluster}, by which benchmarks.{name}.cluster resamples")


def _require_several(name: str, cluster: str, values: Sequence[Any]) -> None:
    if len(values) > 1 and len(set(map(str, values))) == 1:
        raise EvaluationError(
            f"{name}: all {len(values)} questions are one cluster, because {cluster} is {str(values[0])!r} in every document, "
            f"and an interval would have no width. Name another field in benchmarks.{name}.cluster, or {PICTURE} or {QUESTION}"
        )
