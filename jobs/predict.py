"""Runs a checkpoint over a prepared dataset: for every sentence, the mask of its object in every frame.

Each benchmark is run as its published scores were: frame size, windows, which queries are kept. The output holds
predictions/*.parquet, which all formats and scores are made from (jobs/submit.py, jobs/evaluate.py), quarantine.jsonl
(a line an item that could not be used) and config.json. The same command again does what is left to do. Exit code 0:
all is there; 3: finished, but something is in quarantine; 1: failed.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro
from ray.exceptions import RayError

from jobs.common.cli import Exit, run
from jobs.common.predictor_config import PredictorConfig, predictor_spec, root_cause, with_resources
from pipelines.config_io import claim, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.protocols import inference_protocol
from pipelines.inference.quarantine import Failure, write_quarantine
from pipelines.manifest import QUARANTINE, Manifest, read_manifest
from pipelines.predict.plan import Part, left_to_do, plan
from pipelines.predict.run import predict_units
from pipelines.predict.summary import Progress
from pipelines.session import durable_folder, start_ray

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """What to run, and on what."""

    data: str
    """Folder that jobs/prepare.py made, or s3://…, gs://…."""
    checkpoint: str
    """A folder that training wrote, a published .pth file, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Folder for the result, or s3://…, gs://…. One dataset, checkpoint and setting a folder."""
    storage: str = "runs"
    """Folder of the training's results: where mlflow:… and models:/… are looked up."""
    short_side: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Pixels of the shorter side that the model sees. By default as published; small models learn from less."""
    window: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Frames encoded at once. By default as published: 36 for Ref-DAVIS17, else all of a video."""


@dataclass(frozen=True)
class PredictConfig(PredictorConfig, _Wanted):  # fields of the last base come first: --help begins with what is wanted
    """What to run, on what, and with how much of the machine."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is out of range.
        """
        super().__post_init__()
        self.check_counts("short_side", "window")


def main(config: PredictConfig) -> Exit:
    """Predicts what is not there yet, and says what came of it."""
    data, out = durable_folder(config.data, "--data"), durable_folder(config.out, "--out")
    manifest = read_manifest(data)
    protocol = inference_protocol(manifest.dataset, config.short_side, config.window)
    recipe = predictor_spec(config.checkpoint, config.storage, config, protocol)
    start_ray(config.num_cpus)
    resources = config.resources()
    recipe = with_resources(recipe, config, resources)
    made_by = _made_by(manifest, recipe)
    claim(out, made_by)
    try:
        write_config(out, replace(config, made_by=made_by))
    except OSError as error:
        raise JobError(f"--out {out.path()} cannot be written ({error}). Choose another folder.") from error
    parts = plan(manifest, recipe.protocol)
    todo = left_to_do(parts, out)
    units, left = _units(parts), _units(todo)
    print(f"{manifest.dataset} {manifest.split}: {left} of {units} units of work to do, {units - left} are done")
    progress = Progress(left)
    try:
        for done in progress.shown(predict_units(todo, data, out, recipe, resources)):
            progress.count(done)
    except RayError as error:
        _log.debug("traceback of the error below", exc_info=True)
        raise JobError(
            f"{progress.units} of {left} units are done and stay, then: {root_cause(error)}\n"
            f"Run the same command again to go on."
        ) from error
    failures = write_quarantine(out)
    _report(progress, failures, out)
    return Exit.QUARANTINE if failures and not config.allow_failures else Exit.CLEAN


def _made_by(manifest: Manifest, recipe: PredictorSpec) -> dict[str, Any]:
    """Everything another value of which would give other files."""
    shards = [(shard.file, [len(rows) for rows in shard.row_groups]) for shard in manifest.shards]
    return {
        "dataset": manifest.dataset,
        "split": manifest.split,
        "data_sha256": hashlib.sha256(json.dumps([manifest.source_fingerprint, shards]).encode()).hexdigest(),
        **recipe.provenance(),
        "fingerprint": recipe.fingerprint(),
    }


def _units(parts: Iterable[Part]) -> int:
    return sum(len(part.units) for part in parts)


def _report(progress: Progress, failures: list[Failure], out: Folder) -> None:
    if progress.units:
        print(progress)
    print(f"{progress.expressions} expressions of {progress.videos} videos predicted: {out.path()}")
    if failures:
        print(f"in quarantine: {len(failures)} (all of them in {out.path(QUARANTINE)})")
        for failure in failures[:10]:
            print(f"  {failure.video!r} ({failure.stage}): {failure.reason}")


if __name__ == "__main__":
    run(PredictConfig, main)
