"""How predictions are made: checkpoint, protocol and settings. Sent to every predictor, named in every row."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import InferenceProtocol
from sgmg.checkpoints import CONFIG, MODEL, TOKENIZER, load
from sgmg.segmenter import Precision
from sgmg.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """Everything that decides what the predictions are, and where a predictor runs.

    Attributes:
        checkpoint: gives its path on the machine where it is called.
        checkpoint_sha256: of its bytes.
        tokenizer: as JSON.
        threads: of torch in each predictor on a CPU; another number rounds otherwise.
    """

    checkpoint: Callable[[], Path]
    checkpoint_sha256: str
    tokenizer: str
    protocol: InferenceProtocol
    precision: Precision
    compile: bool
    threads: int
    gpu: bool

    def made_by(self) -> dict[str, Any]:
        """What decides what is in the predictions, as plain values."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.encode()).hexdigest(),
            **asdict(self.protocol),
            "precision": self.precision,
            "compile": self.compile,
            "threads": self.threads,
        }

    def fingerprint(self) -> str:
        """The sha256 of `made_by`."""
        return hashlib.sha256(json.dumps(self.made_by(), sort_keys=True).encode()).hexdigest()

    def predictor(self) -> Predictor:
        """The model, loaded.

        Raises:
            FileNotFoundError: the checkpoint is not on this machine.
            ValueError: it is another than where the run was started.
        """
        path = self.checkpoint()
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not on this machine. Put the checkpoint where every node sees it: a shared disk, s3://…, "
                f"gs://…, or MLflow."
            )
        if (found := checkpoint_sha256(path)) != self.checkpoint_sha256:
            raise ValueError(
                f"{path} on this machine has sha256 {found}, where the run was started it had "
                f"{self.checkpoint_sha256}. Put the same checkpoint on every node."
            )
        model = load(path).model
        if self.compile:
            # In place, so that names of weights stay; dynamic, as every video may have another size. Not the backbone:
            # the compiler did not get through its windows of changing size in nine minutes.
            model.transformer.compile(dynamic=True)
        return Predictor(
            model,
            Tokenizer.from_json(self.tokenizer),
            self.protocol,
            device="cuda" if self.gpu else "cpu",
            precision=self.precision,
            fingerprint=self.fingerprint(),
        )


def checkpoint_sha256(path: Path) -> str:
    """Of a published file, or of what a folder of ours holds beside the state of its training."""
    files = [path] if path.is_file() else [path / name for name in (CONFIG, MODEL, TOKENIZER)]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name if path.is_dir() else ''}:{file.stat().st_size}:".encode())
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()
