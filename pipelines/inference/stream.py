"""The Ray Data stream that predict and annotate share: its stages in a row, and everything that Ray needs for them.

plan (CPU) → decode (CPU) → predict (actors) → write (CPU). Backpressure bounds the memory.
"""

import logging
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipelines.errors import JobError
from pipelines.inference.actor import PredictStage
from pipelines.inference.crash_counter import CrashCounter
from pipelines.inference.messages import decode_header, encode_item
from pipelines.inference.predictor_spec import PredictorSpec

_MOST_BLOCKS = 1000
"""Blocks that the items are dealt to, at most; more would only cost the scheduler."""
_BLOCK_BYTES = 1
"""Target size of a block. A block then ends after every message: predictors take units one at a time, and no worker
holds many."""
_PLAN_CALLS, _DECODE_CALLS = 501, 500
"""Tasks that a worker runs before Ray replaces it. Ray fuses neighbouring stages whose options are equal, so these
differ from one another, and predictors have none: otherwise one worker would decode all segments of the video that it
planned, or every predictor would decode for itself."""
_AHEAD = 4
"""Decoding tasks that run at the same time, at most, for each predictor."""
_WRITE_CPUS = 0.1
"""Logical cores of a writing task: it mostly waits for the storage."""
_PATIENCE = 300.0
"""Seconds without any event, after which a warning is logged, and again each time."""
_IN_FLIGHT = 2
"""Units that are sent to one predictor at once, so that the next one is there when it ends the first."""

Stage = Callable[[pa.Table], Iterator[pa.Table]]
"""A callable that takes a table of items or messages, and yields tables of one message."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of the cluster that the stages use, and how long they may stand still.

    Attributes:
        actors: fewest and most predictors; None sets no limit but that of the cluster, which may grow.
        gpus_per_actor, cpus_per_actor: of each predictor; half a GPU lets two share one, so that it never waits.
        cpus_per_decode: of each task that plans or decodes.
        stall_limit: seconds without any event, after which the run is given up.
    """

    actors: tuple[int, int | None]
    gpus_per_actor: float
    cpus_per_actor: float
    cpus_per_decode: float
    stall_limit: float = 3600.0


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a stream, in their order.

    Attributes:
        plan: items → messages for `decode`; None where `decode` takes the items themselves.
        decode: → decoded frames (`messages.encode_frames`), and events.
        predict: the predictor; decoded frames → predictions. Events pass through.
        write: predictions → events. Events pass through.
    """

    plan: Stage | None
    decode: Stage
    predict: PredictorSpec
    write: Stage


def run_stages(
    items: Sequence[Any], stages: Stages, resources: Resources, event_types: Sequence[type[T]]
) -> Iterator[T]:
    """Runs the items through the stages on Ray Data, and yields the events that arrive, in any order.

    Work whose worker or node dies is done again elsewhere; an event may then arrive twice.

    Args:
        items: dataclasses, for the first stage.
        stages: what is run.
        resources: of the cluster.
        event_types: the kinds of messages that the last stage yields.

    Raises:
        ray.exceptions.RayError: an error that is not the fault of a single video.
        JobError: nothing has moved for longer than the limit.
    """
    most = resources.actors[1]
    data = _dataset(items)
    if stages.plan:
        data = _on_cpu(data, stages.plan, num_cpus=resources.cpus_per_decode, max_calls=_PLAN_CALLS)
    data = _on_cpu(
        data,
        stages.decode,
        num_cpus=resources.cpus_per_decode,
        max_calls=_DECODE_CALLS,
        compute=TaskPoolStrategy(_AHEAD * most if most else None),
    )
    data = _on_actors(data, stages.predict, resources)
    data = _on_cpu(data, stages.write, num_cpus=_WRITE_CPUS)
    for row in watched(_rows(data), resources.stall_limit):
        event = decode_header(row["kind"], row["header"], *event_types)
        assert event is not None, row["kind"]
        yield event


def _dataset(items: Sequence[Any]) -> Dataset:
    data = ray.data.from_items([encode_item(item) for item in items], override_num_blocks=min(len(items), _MOST_BLOCKS))
    data.context.enable_progress_bars = False
    data.context.target_max_block_size = _BLOCK_BYTES
    data.context.raise_original_map_exception = True
    # It advises every half minute to reserve memory that workers share in the object store.
    data.context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    return data


def _on_cpu(data: Dataset, stage: Any, **options: Any) -> Dataset:
    return data.map_batches(stage.__call__, batch_size=1, batch_format="pyarrow", **options)


def _on_actors(data: Dataset, spec: PredictorSpec, resources: Resources) -> Dataset:
    crash_counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(CrashCounter).remote()
    least, most = resources.actors
    return data.map_batches(
        PredictStage,
        fn_constructor_args=(spec, crash_counter),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=_IN_FLIGHT),
        num_gpus=resources.gpus_per_actor,
        num_cpus=resources.cpus_per_actor,
    )


def watched(items: Iterator[T], limit: float, patience: float = _PATIENCE) -> Iterator[T]:
    """Yields the items; says so every `patience` seconds that none comes, and what the cluster lacks.

    Raises:
        JobError: none has come for `limit` seconds.
    """
    arrived: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def take() -> None:
        try:
            for item in items:
                arrived.put(("item", item))
            arrived.put(("end", None))
        except BaseException as error:
            arrived.put(("error", error))

    threading.Thread(target=take, daemon=True).start()  # Ray's own iterator cannot be waited for with a limit
    last = time.monotonic()
    while True:
        try:
            kind, value = arrived.get(timeout=min(patience, limit))
        except queue.Empty:
            silent = time.monotonic() - last
            text = f"nothing has moved for {silent / 60:.1f} minutes; {_resources_text()}"
            if silent >= limit:
                raise JobError(
                    f"The run was given up: {text}. Results so far are kept. Look at what the cluster lacks, or raise "
                    f"--stall-limit, and run the same command again to continue."
                ) from None
            _log.warning("%s", text)
            continue
        last = time.monotonic()
        if kind == "error":
            raise value
        if kind == "end":
            return
        yield value
        last = time.monotonic()


def _resources_text() -> str:
    """Returns what of the cluster is free, for people."""
    total, free = ray.cluster_resources(), ray.available_resources()
    parts = [f"{free.get(name, 0):g} of {total[name]:g} {name}s" for name in ("CPU", "GPU") if name in total]
    nodes = sum(node["Alive"] for node in ray.nodes())
    return f"{nodes} nodes are there, {' and '.join(parts) or 'no core'} free"


def _rows(data: Dataset) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        # How many segments there are is known when they are planned, not when the stream is made.
        warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
        yield from data.iter_rows()
