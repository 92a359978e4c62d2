"""Rows that validation scores: divided over the ranks, read a row group at a time, and decoded ahead of the model."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import BadItem, DamagedFile
from pipelines.files import Folder
from pipelines.inference.model_frames import ModelFrames, model_frames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.records import SCHEMA, Record, record_of
from pipelines.scoring.truth import VideoTruth, truth_of
from pipelines.training.loader import Prefetcher

AHEAD = 2
"""Videos that are decoded and wait for the model. One more is being decoded meanwhile, and one is with the model."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """Reference to one row of prepared data; `work` counts its pairs of frame and expression."""

    folder: Folder
    file: str
    row_group: int
    row: int
    video: str
    work: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A video that cannot be scored, and why: its truth cannot be used, or only the model's answer is missing."""

    video: str
    reason: str
    truth: bool


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """A video that can be scored: its truth, and its frames as the model sees them."""

    ref: RowRef
    truth: VideoTruth
    frames: ModelFrames


def row_groups(rows: Sequence[RowRef]) -> list[list[RowRef]]:
    """Returns the rows of each row group, in the order in which the groups first occur."""
    groups: defaultdict[tuple[Folder, str, int], list[RowRef]] = defaultdict(list)
    for ref in rows:
        groups[ref.folder, ref.file, ref.row_group].append(ref)
    return list(groups.values())


def partition_by_cost(rows: Sequence[RowRef], world: int) -> list[list[RowRef]]:
    """Divides rows over the ranks: all get about the same work, and a row group goes to one rank where that allows it.

    Groups are dealt from the longest on, each to the rank with the least work. A row that would lift its rank above an
    even share goes to the rank with the least work then, and takes the rest of its group along. So

    - no rank has more work than an even share and one row;
    - until all ranks are within one (longest) row of an even share, `world` groups at most are cut. Only what is left
      then, less than one longest row a rank, is dealt row by row. A group is never read twice by the same rank.
    """
    even = sum(ref.work for ref in rows) / world
    shares: list[list[RowRef]] = [[] for _ in range(world)]
    loads = [0] * world
    for group in sorted(row_groups(rows), key=lambda refs: -sum(ref.work for ref in refs)):
        rank = None
        for ref in sorted(group, key=lambda one: -one.work):
            if rank is None or loads[rank] + ref.work > even:
                rank = loads.index(min(loads))
            shares[rank].append(ref)
            loads[rank] += ref.work
    return shares


def read_records(rows: Sequence[RowRef]) -> Iterator[tuple[RowRef, Record | Lost]]:
    """Yields every row's record, or why it cannot be read. Each row group is read once, and one is in memory at a time.

    They come group by group: the rows of a group stand together in what `partition_by_cost` returns.
    """
    for group in row_groups(rows):
        yield from _read_group(group)


def decoded_ahead(rows: Sequence[RowRef], protocol: InferenceProtocol) -> Generator[DecodedVideo | Lost]:
    """Yields every video decoded, or why it is lost; a thread reads and decodes the next ones (`AHEAD`) meanwhile."""
    ahead = Prefetcher(_decoded(rows, protocol), AHEAD)
    try:
        while (video := next(ahead, None)) is not None:
            yield video
    finally:
        ahead.close()


def _decoded(rows: Sequence[RowRef], protocol: InferenceProtocol) -> Iterator[DecodedVideo | Lost]:
    for ref, record in read_records(rows):
        if isinstance(record, Lost):
            yield record
            continue
        try:
            yield DecodedVideo(ref, truth_of(record), model_frames(record, protocol))
        except BadItem as error:
            yield Lost(ref.video, error.reason, truth=False)
        except ValueError as error:
            yield Lost(ref.video, str(error), truth=True)


def _read_group(group: Sequence[RowRef]) -> Iterator[tuple[RowRef, Record | Lost]]:
    first = group[0]
    where = f"{first.folder.path(first.file)}, row group {first.row_group}"
    try:
        with first.folder.parquet(first.file, SCHEMA.names) as parquet:
            table = parquet.read_row_group(first.row_group, use_threads=False)
    except (OSError, DamagedFile) as error:
        for ref in group:
            yield ref, Lost(ref.video, f"{where} cannot be read: {error}", truth=True)
        return
    for ref in group:
        try:
            yield ref, _record(table, ref)
        except (ValueError, KeyError) as error:
            yield ref, Lost(ref.video, f"{where}: {error}", truth=True)


def _record(table: pa.Table, ref: RowRef) -> Record:
    """Returns the record of a row, if it is the one that the manifest described when the run began.

    Raises:
        ValueError: it is another one, or its truth is gone.
        KeyError: a column is missing.
    """
    rows = table.slice(ref.row, 1).to_pylist()
    if not rows or rows[0]["video"] != ref.video:
        raise ValueError("it holds other videos than when the run was started. Prepare the same data again.")
    record = record_of(rows[0])
    if all(expression.object_ids is None for expression in record.expressions):
        raise ValueError("it holds no truth any more. Prepare the same data again.")
    return record
