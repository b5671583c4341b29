"""What lmms-eval wants of a model besides answers, for those of this package: ``VdepModel`` and ``Recorded``."""

from __future__ import annotations

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from ..errors import EvaluationError


class Answerer(lmms):
    """Answers questions in one round. ``blind``: every picture is replaced by one colour."""

    is_simple = True

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = torch.device(device)
        self.blind = False

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def clean(self) -> None:
        """lmms-eval would strip the model after a pass; the blind pass needs it again."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise EvaluationError("no benchmark here asks for likelihoods")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise EvaluationError("no benchmark here asks in several rounds")
