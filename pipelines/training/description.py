"""The description of a run in MLflow: what it is, what it learned from, how good it became, and pictures of it."""

from collections.abc import Sequence

from pipelines.clips.stream import TrainData
from pipelines.files import Folder
from pipelines.tracking.run_handle import RunHandle
from pipelines.training.best import read_best
from pipelines.training.checkpoints import PREFIX
from pipelines.training.config import TrainConfig
from pipelines.training.data import samples_text

PICTURES = "valid"
"""Folder of MLflow artifacts with a folder of pictures for each score."""
FIRST_BATCH = "first_batch.png"


def description(config: TrainConfig, data: TrainData, run: Folder, tracking: RunHandle) -> str:
    """Returns the description of a run as Markdown; its pictures are artifacts of its MLflow run.

    Raises:
        MlflowException: MLflow cannot be reached.
    """
    learned = "; ".join(f"{part.manifest.title} {part.manifest.split} ({part.folder.uri})" for part in data.parts)
    begins = config.init or config.backbone_weights or "random weights"
    kind = "multi-object " if config.multi_object else ""
    rows = {
        "model": f"{kind}{config.model}, recipe {config.recipe}, from {begins}",
        "learned from": f"{learned}: {samples_text(data)}",
        "scored on": ", ".join(config.valid) or (f"{config.holdout} videos held out" if config.holdout else "nothing"),
        "steps": f"{config.global_batch} clips each, {config.epochs} epochs of {data.plan(0).steps}"
        + (f", at most {config.max_steps}" if config.max_steps else ""),
        "folder": run.uri,
    }
    if best := read_best(run):
        rows["best"] = f"{best.score:.4f} after step {best.step}, on {best.scored_on}"
    table = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *table, "", *_pictures(tracking)])


def _pictures(tracking: RunHandle) -> Sequence[str]:
    """Returns Markdown of the worst and best cases of the newest score, of each set, and of the first batch."""
    first = [path for path, is_folder in _listed(tracking) if path == FIRST_BATCH and not is_folder]
    paths = [*_newest_cases(tracking, PICTURES), *first]
    return [f"![{path}](get-artifact?path={path}&run_uuid={tracking.run_id})\n" for path in paths]


def _newest_cases(tracking: RunHandle, folder: str) -> list[str]:
    """Returns the pictures in the folder of the last step; of several sets, each has such folders in its own."""
    folders = [path for path, is_folder in _listed(tracking, folder) if is_folder]
    steps = [path for path in folders if path.rpartition("/")[2].startswith(PREFIX)]
    if steps:
        return [path for path, _ in _listed(tracking, max(steps))]
    return [path for one in folders for path in _newest_cases(tracking, one)]


def _listed(tracking: RunHandle, folder: str | None = None) -> list[tuple[str, bool]]:
    return [(item.path, item.is_dir) for item in tracking.client().list_artifacts(tracking.run_id, folder)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
