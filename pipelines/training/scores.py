"""The scores of a run in progress, a file for each: what a restart needs to know of the best so far."""

import json

from pipelines.files import Folder
from pipelines.training.checkpoints import step_name
from pipelines.training.validation import ValidationResult

SCORES = "scores"


def scores_of(run: Folder) -> dict[int, float]:
    """The figure that checkpoints are compared by, of every step at which the run was scored."""
    told = [json.loads(run.read(f"{SCORES}/{name}")) for name in run.names(SCORES, suffix=".json")]
    return {one["step"]: one["figures"][one["main"]] for one in told}


def write_score(run: Folder, step: int, found: ValidationResult) -> None:
    """Says what the run scored at a step."""
    told = {"step": step, "main": found.main, "figures": dict(found.figures)}
    run.write(f"{SCORES}/{step_name(step)}.json", (json.dumps(told, indent=2) + "\n").encode())
