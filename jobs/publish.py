"""Writes a trained model as a folder for the Hugging Face hub, with its model card, and uploads it on request.

The folder holds weights, configuration and tokenizer, as Segmenter.from_pretrained reads them. README.md in it is the
model card, filled from the checkpoint's notes, its MLflow run and results of jobs/evaluate.py. Nothing is uploaded
without --push-to.
"""

from dataclasses import dataclass

from jobs.common.cli import run
from pipelines.errors import Exit


@dataclass(frozen=True)
class PublishConfig:
    """Checkpoint, result, and the facts for the model card."""

    checkpoint: str
    """A folder, a published .pth, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Local folder for the result, created if missing. An existing README.md, which may be edited, is kept."""
    licence: str = ""
    """Licence of the weights, in the hub's spelling: apache-2.0, cc-by-nc-4.0, … The training data limit the choice.
    If empty, the card says that no licence was given."""
    scores: tuple[str, ...] = ()
    """Results of jobs/evaluate.py for the card: folders that hold scores.json."""
    push_to: str = ""
    """Upload to this repository of the hub, created if missing: name/of-model. Requires `hf auth login`."""
    public: bool = False
    """Make a repository that --push-to creates public."""
    tokenizer: str = ""
    """Folder or cached name of the tokenizer, if the checkpoint has none; by default roberta-base."""
    short_side: int | None = None
    """Pixels of the shorter side that users' frames are resized to; by default the checkpoint's value, else 360."""
    storage: str = "runs"
    """Folder of the results, with MLflow's database unless MLFLOW_TRACKING_URI is set."""


def main(config: PublishConfig) -> Exit:
    """Writes the folder, prints what the card lacks, and uploads on request.

    Raises:
        JobError: the checkpoint or the scores do not exist, or the hub refused the upload.
    """
    from jobs.impl.publish import publish

    return publish(config)


if __name__ == "__main__":
    run(PublishConfig, main)
