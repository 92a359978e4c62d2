"""Runs a checkpoint on prepared data: the body of jobs/predict.py."""

import hashlib
import json
import logging
from dataclasses import replace
from typing import Any

from ray.exceptions import RayError

from jobs.common.predictors import predictor_spec, resources_of, with_resources
from jobs.common.progress import track
from jobs.predict import PredictConfig
from pipelines.config_io import require_same_settings, stored_setting, write_config
from pipelines.errors import Exit, Failure, JobError, root_cause
from pipelines.files import Folder, storage_retries
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.protocols import inference_protocol
from pipelines.inference.quarantine import write_quarantine
from pipelines.manifest import QUARANTINE, Manifest, read_manifest
from pipelines.predict.plan import left_to_do, plan
from pipelines.predict.run import predict_units
from pipelines.predict.summary import Progress
from pipelines.runtime.lease import hold_lease
from pipelines.session import durable_folder, start_ray

_log = logging.getLogger(__name__)


def predict(config: PredictConfig) -> Exit:
    """Predicts everything that is not finished, and prints a summary."""
    data, out = durable_folder(config.data, "--data"), durable_folder(config.out, "--out")
    manifest = read_manifest(data)
    protocol = inference_protocol(manifest.dataset, config.short_side, config.window)
    spec = predictor_spec(config.checkpoint, config.storage, config, protocol)
    start_ray(config.num_cpus)
    with hold_lease(out):
        return _predict(config, manifest, spec, data, out)


def _predict(config: PredictConfig, manifest: Manifest, spec: PredictorSpec, data: Folder, out: Folder) -> Exit:
    resources = resources_of(config)
    spec = with_resources(spec, config, resources, stored_setting(out, "made_by", "precision"))
    made_by = _made_by(manifest, spec)
    require_same_settings(out, made_by, "made_by")
    write_config(out, replace(config, made_by=made_by))
    units = plan(manifest)
    todo = left_to_do(units, out)
    left, done = len(todo), len(units) - len(todo)
    print(f"{manifest.dataset} {manifest.split}: {left} of {len(units)} units of work to do, {done} are done")
    progress = Progress(left)
    try:
        for unit in track(predict_units(todo, data, out, spec, resources), left, "unit", progress.__str__):
            progress.count(unit)
    except RayError as error:
        _log.debug("traceback of the error below", exc_info=True)
        raise JobError(
            f"{progress.units} of {left} units are done and kept. The run stopped because: {root_cause(error)}\n"
            f"Run the same command again to continue."
        ) from error
    failures = write_quarantine(out)
    _report(progress, failures, out, spec.sentences_together)
    return Exit.QUARANTINE if failures and not config.allow_failures else Exit.CLEAN


def _made_by(manifest: Manifest, spec: PredictorSpec) -> dict[str, Any]:
    """Returns the data and settings that decide the predictions, and their fingerprint."""
    shards = [(shard.file, [len(rows) for rows in shard.row_groups]) for shard in manifest.shards]
    return {
        "dataset": manifest.dataset,
        "split": manifest.split,
        "data_sha256": hashlib.sha256(json.dumps([manifest.source_fingerprint, shards]).encode()).hexdigest(),
        **spec.provenance(),
        "fingerprint": spec.fingerprint(),
    }


def _report(progress: Progress, failures: list[Failure], out: Folder, together: int) -> None:
    if progress.units:
        print(progress)
    if retries := progress.retries + storage_retries():
        print(f"{retries} requests were repeated because the storage was busy")
    asked = f", up to {together} asked together" if together > 1 else ""
    print(f"{progress.expressions} expressions of {progress.videos} videos predicted{asked}: {out.path()}")
    if failures:
        print(f"in quarantine: {len(failures)} (all of them in {out.path(QUARANTINE)})")
        for failure in failures[:10]:
            print(f"  {failure.video!r} ({failure.stage}): {failure.reason}")
