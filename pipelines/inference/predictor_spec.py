"""The specification of a predictor: checkpoint, protocol and settings. Every row of predictions has its fingerprint."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import InferenceProtocol
from sgmg.checkpoints import files_of, load
from sgmg.config import Precision, SgMgConfig
from sgmg.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """Everything that decides the predictions, and whether the predictor runs on a GPU.

    Attributes:
        checkpoint: returns the path of the checkpoint on the machine where it is called.
        checkpoint_sha256: of the bytes of the checkpoint.
        tokenizer: as JSON.
        protocol: of the benchmark.
        precision: of the matrix products.
        model: its configuration; the checkpoint says the same.
        threads: of torch in each predictor on a CPU; another number rounds differently.
        gpu: whether it runs on a GPU.
        sentences_together: most expressions that a multi-object model is asked in one pass; 1 for a single-object one.
    """

    checkpoint: Callable[[], Path]
    checkpoint_sha256: str
    tokenizer: str
    protocol: InferenceProtocol
    precision: Precision
    model: SgMgConfig
    threads: int
    gpu: bool
    sentences_together: int = 1

    def provenance(self) -> dict[str, Any]:
        """Returns everything that decides the predictions, as plain values, for config.json."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.encode()).hexdigest(),
            **self.protocol.provenance(),
            "precision": self.precision,
            "threads": self.threads,
            **({"sentences_together": self.sentences_together} if self.model.multi_object else {}),
        }

    def fingerprint(self) -> str:
        """Returns the sha256 of `provenance`."""
        return hashlib.sha256(json.dumps(self.provenance(), sort_keys=True).encode()).hexdigest()

    def predictor(self) -> Predictor:
        """Returns a predictor with the model loaded.

        Raises:
            FileNotFoundError: the checkpoint is not on this machine.
            ValueError: the checkpoint on this machine differs from that on the machine that started the run.
        """
        path = self.checkpoint()
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not on this machine. Put the checkpoint where every node sees it: a shared disk, s3://…, "
                f"gs://…, or MLflow."
            )
        if (digest := checkpoint_sha256(path)) != self.checkpoint_sha256:
            raise ValueError(
                f"{path} on this machine has sha256 {digest}, but the machine that started the run has "
                f"{self.checkpoint_sha256}. Put the same checkpoint on every node."
            )
        return Predictor(
            load(path).model,
            Tokenizer.from_json(self.tokenizer),
            self.protocol,
            device="cuda" if self.gpu else "cpu",
            precision=self.precision,
            sentences_together=self.sentences_together,
            fingerprint=self.fingerprint(),
        )


def checkpoint_sha256(path: Path) -> str:
    """Returns the sha256 of a published file, or of the files of a folder that `sgmg.checkpoints` wrote.

    The state of the training is left out: it does not change predictions.
    """
    files = files_of(path)
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name if len(files) > 1 else ''}:{file.stat().st_size}:".encode())
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()
