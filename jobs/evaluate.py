"""Scores predictions against the ground truth, video by video on Ray, and prints them next to the paper's figures.

Scores by dataset: J and F of every expression (Ref-YouTube-VOS, MeViS, Long-RVOS, ReVOS, Ref-SAV, VOTS, own data) and
what else a benchmark measures (docs/benchmarks.md), DAVIS's two protocols per annotator (Ref-DAVIS17), COCO mAP, P@K
and IoU of masks (A2D, JHMDB) and also of boxes (RefCOCO). Writes summary.csv, every scored
expression in expressions.csv and expressions.parquet, and last scores.json into --out. If it is killed, run the same
command again.
"""

from dataclasses import dataclass

from jobs.common.cli import run
from pipelines.errors import Exit, JobError


@dataclass(frozen=True)
class EvaluateConfig:
    """Predictions, ground truth, and where to write the scores."""

    truth: tuple[str, ...]
    """Ground truth: folders of prepared data; where those hold no masks or no void pixels, a folder with Annotations/
    and meta_expressions*.json with obj_id (Ref-YouTube-VOS), or one of DAVIS; a COCO annotation file with a .json
    submission."""
    out: str
    """Folder for the scores: local, s3://… or gs://…."""
    predictions: str | None = None
    """Folder that jobs/predict.py wrote."""
    submission: str | None = None
    """A submission to a benchmark server, instead of --predictions: .zip (or folder) of PNGs or of VOTS's text files,
    .json of Ref-SAV or of COCO results."""
    compare: tuple[str, ...] = ()
    """Two or more folders of predictions, or submissions, to compare sentence by sentence, instead of scoring one."""
    missing_as_empty: bool = False
    """Score missing predictions as empty masks; otherwise they are an error, which lists them."""
    pictures: int = 0
    """Number of worst, and of best, expressions to draw, into pictures/; with --compare, of largest differences."""
    frames: tuple[str, ...] = ()
    """Prepared data with the frames to draw on, if --truth has none."""
    storage: str | None = None
    """Folder of MLflow's database, to record the scores there too (MLFLOW_TRACKING_URI has priority if set)."""
    mlflow_run: str | None = None
    """Id of the MLflow run to add the scores to; by default a new run."""

    def __post_init__(self) -> None:
        """Checks which flags are given together.

        Raises:
            JobError: not exactly one of --predictions, --submission and --compare is given, --compare names a single
                run, --truth is empty, --pictures is negative, or --mlflow-run is given without --storage.
        """
        if [self.predictions, self.submission, self.compare or None].count(None) != 2:
            raise JobError("Give either --predictions, --submission or --compare.")
        if len(self.compare) == 1:
            raise JobError(f"--compare {self.compare[0]} is one run. Give two or more.")
        if self.compare and self.storage:
            raise JobError("--storage keeps the scores of one run: leave it out beside --compare.")
        if not self.truth:
            raise JobError("--truth is empty. Give at least one folder.")
        if self.pictures < 0:
            raise JobError(f"--pictures must be 0 or more (got {self.pictures}).")
        if self.mlflow_run and not self.storage:
            raise JobError("--mlflow-run needs --storage, the folder that the run was tracked in.")


def main(config: EvaluateConfig) -> Exit:
    """Scores, writes and prints; records the figures in MLflow if --storage is given.

    Raises:
        JobError: a flag names something that does not exist or cannot be used.
        ValueError: predictions and ground truth do not match, something is missing, or a file is damaged.
    """
    if config.compare:
        from jobs.impl.compare import compare_and_print

        return compare_and_print(config)
    from jobs.impl.evaluate import evaluate_and_print

    return evaluate_and_print(config)


if __name__ == "__main__":
    run(EvaluateConfig, main)
