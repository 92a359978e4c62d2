"""Bulk inference as a stream: plan → read and decode (CPU) → predict (actors) → write (CPU); memory stays bounded."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from pipelines.files import Folder
from pipelines.inference.actor import CrashCounter, Predict
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.stream import _AHEAD, _BLOCK_BYTES, _MOST_BLOCKS, _WRITE_CPUS, Resources
from pipelines.predict.decode import DecodeStage
from pipelines.predict.plan import Part
from pipelines.predict.write import WriteStage

_CALLS = 500
"""Tasks a worker decodes before a fresh one takes its place. That predictors have no such limit keeps Ray from fusing
both stages, which would have every predictor decode for itself."""


@dataclass(frozen=True, slots=True)
class Done:
    """A unit whose file is there, and what it took.

    Attributes:
        failed: videos or images that could not be used.
        waited, busy: seconds its predictor waited for it, and worked on it.
        died: predictors that died while at it, before.
    """

    unit: str
    failed: int
    videos: int
    frames: int
    expressions: int
    died: int
    waited: float
    busy: float


def predicted(
    parts: Sequence[Part], data: Folder, out: Folder, recipe: PredictorSpec, resources: Resources
) -> Iterator[Done]:
    """Does the parts, and says of every unit when its file is there.

    A unit whose worker or node dies is done again elsewhere; its file has one name and one content, so that nothing is
    there twice.

    Raises:
        ray.exceptions.RayError: something failed that is no fault of a single video; what is written stays.
    """
    if not parts:
        return
    units = sum(len(part.units) for part in parts)
    least, most = (min(number, units) for number in resources.actors)
    rows = [{"part": part.to_json()} for part in parts]
    blocks = min(len(rows), _MOST_BLOCKS)
    dataset = ray.data.from_items(rows, override_num_blocks=blocks)
    dataset.context.enable_progress_bars = False
    dataset.context.target_max_block_size = _BLOCK_BYTES
    dataset.context.raise_original_map_exception = True
    # It advises every half minute to reserve memory that workers share in the object store.
    dataset.context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(CrashCounter).remote()
    decoded = dataset.map_batches(
        DecodeStage(data, recipe.protocol).__call__,
        batch_size=1,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(min(blocks, _AHEAD * most)),
        num_cpus=resources.cpus_per_decode,
        max_calls=_CALLS,
    )
    found = decoded.map_batches(
        Predict,
        fn_constructor_args=(recipe, attempts),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
        num_gpus=resources.gpus_per_actor,
        num_cpus=resources.cpus_per_actor,
    )
    written = found.map_batches(WriteStage(out).__call__, batch_size=1, batch_format="pyarrow", num_cpus=_WRITE_CPUS)
    for row in written.iter_rows():
        yield Done(unit=row["unit"], failed=len(json.loads(row["failures"])), **json.loads(row["count"]))
