"""Prepares a raw dataset: a folder of Parquet shards with manifest and quarantine; one Ray Data task per shard."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import ray
from ray.data import TaskPoolStrategy

from pipelines.errors import Dropped, JobError, LayoutError
from pipelines.files import Folder, at_once
from pipelines.manifest import DROPPED, MANIFEST, MANIFEST_VERSION, QUARANTINE, Manifest, Shard
from pipelines.prepare.shard import Footer, ShardPlan, ShardWriter, items_to_json, read_footer
from pipelines.records import SCHEMA_VERSION
from pipelines.safety.secrets import redacted
from pipelines.sources.base import LeavesOut, Source, fingerprint


def plan_shards(source: Source, settings: Mapping[str, Any], rows_per_shard: int) -> list[ShardPlan]:
    """Plans the shards of a split: neighbouring items in the order of their video names.

    Args:
        settings: plain values that, with the items, decide the content of a shard.

    Raises:
        LayoutError: the folder has another layout than the source expects, or the split is empty.
    """
    items = sorted(source.items(), key=lambda item: item.video)
    if not items:
        raise LayoutError(f"{source.dataset}, split {source.split!r}, lists no video. Check --raw and --split.")
    parts = [items_to_json(items[first : first + rows_per_shard]) for first in range(0, len(items), rows_per_shard)]
    versions = {"schema_version": SCHEMA_VERSION, "manifest_version": MANIFEST_VERSION}
    made_by = json.dumps({**settings, **versions}, sort_keys=True)
    name = f"{source.dataset}-{source.split}"
    return [
        ShardPlan(f"{name}-{number:05d}-of-{len(parts):05d}.parquet", part, fingerprint([made_by, part]))
        for number, part in enumerate(parts)
    ]


def shards_to_do(plans: Sequence[ShardPlan], out: Folder, retry_quarantined: bool = False) -> list[ShardPlan]:
    """Returns the shards that are missing; with `retry_quarantined` also those with quarantined items.

    Removes the files of killed writers, and the manifest if work is left: `finish` writes a new one.

    Raises:
        ValueError: the folder holds shards of other raw data or settings, or a damaged shard.
    """
    out.remove_unfinished()
    there = set(out.files(suffix=".parquet"))
    if strange := sorted(there - {plan.file for plan in plans}):
        raise ValueError(
            f"{out.path(strange[0])} is none of the {len(plans)} shards that would be written there: it was made from "
            f"other raw data. Choose another --out, or remove that folder."
        )

    def is_left(plan: ShardPlan) -> bool:
        return plan.file not in there or _to_repeat(plan, out, retry_quarantined)

    todo = [plan for plan, left in zip(plans, at_once(is_left, plans), strict=True) if left]
    if todo:
        out.remove(MANIFEST, missing_ok=True)
    return todo


def write_shards(todo: Sequence[ShardPlan], writer: ShardWriter, workers: int | None = None) -> Iterator[int]:
    """Writes the shards in any order. Yields the bytes of its frames for each written shard.

    Ray runs a task again if its worker or node dies.

    Args:
        workers: most tasks at once; by default one per core of the cluster.

    Raises:
        JobError: the disk is full, the storage fails, or a file that concerns all items is damaged.
    """
    if not todo:
        return
    rows = [{"file": plan.file, "items": plan.items, "fingerprint": plan.fingerprint} for plan in todo]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    dataset.context.enable_progress_bars = False
    done = dataset.map(
        lambda row: _written_or_problem(writer, ShardPlan(**row)),
        compute=TaskPoolStrategy(workers and min(workers, len(rows))),
    )
    for row in done.iter_rows():
        if row["problem"]:
            raise JobError(row["problem"])
        yield row["frame_bytes"]


def _written_or_problem(writer: ShardWriter, plan: ShardPlan) -> dict[str, Any]:
    """Writes a shard. Returns the bytes of its frames, or in words why the disk or storage did not take it.

    Raised here, such an error would reach the driver with a hundred lines of Ray's about where it was.
    """
    try:
        return {"frame_bytes": writer.write(plan).counts.get("frame_bytes", 0), "problem": ""}
    except (OSError, LayoutError) as error:
        what = redacted(" ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))
        return {"frame_bytes": 0, "problem": what}


def finish(
    plans: Sequence[ShardPlan], source: Source, out: Folder, config: Mapping[str, Any], *, synthetic: bool = False
) -> Manifest:
    """Writes quarantine, what was left out, and manifest from the footers of the shards; the manifest last.

    Args:
        synthetic: whether the data were drawn, as the manifest then says.

    Raises:
        FileNotFoundError: a shard is missing.
    """
    footers = list(at_once(lambda plan: read_footer(out, plan.file), plans))
    sizes = out.files(suffix=".parquet")
    shards = tuple(
        Shard(plan.file, sizes[plan.file], footer.row_groups) for plan, footer in zip(plans, footers, strict=True)
    )
    out.remove_unfinished()  # of workers that died
    quarantined = [json.dumps(one) for footer in footers for one in footer.quarantined]
    out.write(QUARANTINE, "".join(f"{line}\n" for line in quarantined).encode())
    left_out = source.left_out() if isinstance(source, LeavesOut) else []
    dropped = [json.dumps(asdict(one)) for one in chain(left_out, *(footer.left_out for footer in footers))]
    out.write(DROPPED, "".join(f"{line}\n" for line in dropped).encode())
    manifest = Manifest(
        dataset=source.dataset,
        split=source.split,
        config=config,
        counts=_counts(footers) | {"bytes": sum(shard.bytes for shard in shards)},
        dropped=_dropped(left_out, footers),
        quarantined=len(quarantined),
        source_fingerprint=fingerprint(one for footer in footers for one in footer.row_fingerprints),
        shards=shards,
        synthetic=synthetic,
    )
    out.write(MANIFEST, manifest.to_json().encode())
    return manifest


def _to_repeat(plan: ShardPlan, out: Folder, retry_quarantined: bool) -> bool:
    footer = read_footer(out, plan.file)
    if footer.fingerprint != plan.fingerprint:
        raise ValueError(
            f"{out.path(plan.file)} was made from other raw data or settings (the annotation files may have "
            f"changed since), or by another version of this code. Choose another --out, or remove that folder."
        )
    return retry_quarantined and bool(footer.quarantined)


def _counts(footers: Sequence[Footer]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name in ("videos", "frames", "objects", "expressions", "frame_bytes"):
        counts[name] = 0
    for footer in footers:
        counts.update(footer.counts)
    return dict(counts)


def _dropped(left_out: Sequence[Dropped], footers: Sequence[Footer]) -> dict[str, int]:
    dropped = Counter(one.reason for one in left_out)
    for footer in footers:
        dropped.update(footer.dropped)
    return dict(sorted(dropped.items()))
