"""What the launcher tells the workers: one training, with every path it needs (``job.json`` in the run's folder)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..files import read_json
from ..study.execution import StageExecution
from ..study.recipe import TrainingRecipe
from ..study.settings import Frozen

RESUME_EXIT_CODE = 75
"""Exit code of a training that saved its state and wants to be started again (EX_TEMPFAIL)."""


class Job(Frozen):
    recipe: TrainingRecipe
    execution: StageExecution
    device: Literal["cuda", "cpu"]
    tower: Path
    language_model: Path
    data: Path
    initial: Path | None
    deepspeed: Path
    run: Path
    validation: Path | None = None
    """Prepared data whose text loss is measured beside training; no weight depends on it, and so it is none of the inputs."""
    inputs: dict[str, str]
    """SHA-256 of the manifests of everything the training reads: a checkpoint made from other inputs is refused."""

    @property
    def identity(self) -> dict[str, str]:
        """What every checkpoint of this run carries."""
        return {"recipe": self.recipe.digest, **{f"input_{name}": digest for name, digest in sorted(self.inputs.items())}}

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def final(self) -> Path:
        return self.run / "final"

    @property
    def heartbeats(self) -> Path:
        return self.run / "heartbeats"

    @property
    def smaller_micro_batch(self) -> Path:
        """Written by a rank that ran out of memory: the micro-batch to go on with."""
        return self.run / "micro_batch.json"

    @property
    def configured_micro_batch(self) -> int:
        """Samples per rank and pass, or with packing tokens."""
        return self.execution.micro_batch_tokens if self.execution.packing else self.execution.micro_batch

    @property
    def micro_batch(self) -> int:
        """As configured, or what was found to fit. The global batches stay."""
        configured = self.configured_micro_batch
        if not self.smaller_micro_batch.is_file():
            return configured
        note = read_json(self.smaller_micro_batch)
        return int(note["micro_batch"]) if note["configured"] == configured else configured

    @property
    def unit(self) -> str:
        """What micro-batches are counted in."""
        return "tokens" if self.execution.packing else "samples"

    @property
    def stopped(self) -> Path:
        """Written by rank 0 when it saved its state and wants to be started again."""
        return self.run / "stopped.json"
