"""Reading a folder of predictions: first the index, then one expression at a time, its segments joined."""

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pyarrow as pa

from pipelines.errors import DamagedFile
from pipelines.files import READERS, Folder, at_once, damaged_file, number_order, safe_name
from pipelines.ledger import LEDGER, PREDICTIONS, Rows, read_ledger
from pipelines.predictions import PREDICTION_SCHEMA, PREDICTION_VERSION, Prediction, QueryTrack, prediction_of
from sgmg.masks import Size, rle_union

_LIGHT = [name for name in PREDICTION_SCHEMA.names if name not in ("queries", "merged", "timestamps", "source")]


class _LightRow(TypedDict):
    """The types of the columns of an index; a damaged file may hold nothing in their place."""

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    frame_names: list[str]
    fingerprint: str
    external_id: str | None
    annotator: int | None
    status: str
    start_frame: Annotated[int, msgspec.Meta(ge=0)]
    schema_version: int


_AHEAD_BYTES = 64 * 2**20
"""Bytes of row groups that are read ahead, about."""


class Row(NamedTuple):
    """Location of a row."""

    file: str
    group: int  # which row group of the file
    place: int  # which row of the group


@dataclass(frozen=True, slots=True)
class PredictionEntry:
    """One expression of one video with all its segments, described without reading masks.

    An entry without rows was not predicted; it is read as absent.
    """

    video: str
    expression: str
    text: str
    size: Size
    frame_names: tuple[str, ...]
    start_frame: int
    external_id: str | None
    annotator: int | None
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of a run, sorted by video, then expression (numbers by value), over all files.

    Iterating holds one row group, and reads some ahead.
    """

    folder: Folder
    dataset: str
    split: str
    fingerprint: str  # of checkpoint and settings
    entries: tuple[PredictionEntry, ...]

    def __iter__(self) -> Iterator[Prediction]:
        return self.read(self.entries)

    def read(self, entries: Iterable[PredictionEntry]) -> Iterator[Prediction]:
        """Reads the predictions of some entries, in their order, segments joined.

        Raises:
            ValueError: a file is damaged, or segments do not fit together; the message names the file.
        """
        entries = list(entries)
        wanted = ((row.file, row.group) for entry in entries for row in entry.rows)
        with closing(_row_groups(self.folder, (key for key, _ in groupby(wanted)))) as groups:
            at, group = ("", -1), pa.table({})
            for entry in entries:
                if not entry.rows:
                    yield self._absent(entry)
                    continue
                parts: list[Prediction] = []
                for file, number, place in entry.rows:
                    with _named(self.folder, file):
                        if at != (file, number):
                            at, group = (file, number), next(groups)
                        parts.append(prediction_of(group.slice(place, 1).to_pylist()[0]))
                yield _joined(parts)

    def read_columns(
        self, entries: Iterable[PredictionEntry], columns: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Reads some columns of the predictions of some entries, in their order: a row for each segment of an entry.

        Raises:
            ValueError: a file is damaged; the message names it.
        """
        entries = list(entries)
        wanted = ((row.file, row.group) for entry in entries for row in entry.rows)
        with closing(_row_groups(self.folder, (key for key, _ in groupby(wanted)), columns)) as groups:
            at, group = ("", -1), pa.table({})
            for entry in entries:
                found: list[dict[str, Any]] = []
                for file, number, place in entry.rows:
                    with _named(self.folder, file):
                        if at != (file, number):
                            at, group = (file, number), next(groups)
                        found += group.slice(place, 1).to_pylist()
                yield found

    def _absent(self, entry: PredictionEntry) -> Prediction:
        """Makes a prediction with an empty mask in every frame."""
        t = len(entry.frame_names)
        return Prediction(
            dataset=self.dataset,
            split=self.split,
            video=entry.video,
            expression=entry.expression,
            text=entry.text,
            width=entry.size[1],
            height=entry.size[0],
            frame_names=entry.frame_names,
            queries=(QueryTrack((rle_union([], entry.size),) * t, ((0.0, 0.0, 0.0, 0.0),) * t, (0.0,) * t),),
            score=0.0,
            fingerprint=self.fingerprint,
            source="",
            source_fingerprint="",
            external_id=entry.external_id,
            annotator=entry.annotator,
            status="absent",
            start_frame=entry.start_frame,
        )


def iter_predictions(folder: Folder) -> Iterator[Prediction]:
    """Yields every expression of every video of a run, segments joined, sorted by video and expression.

    Raises:
        FileNotFoundError: the folder holds no predictions.
        ValueError: a file is damaged, or files are of different runs; the message names them.
    """
    return iter(read_predictions(folder))


def read_predictions(folder: Folder) -> Predictions:
    """Indexes the predictions of a run's folder without reading masks. Skips unfinished and hidden files.

    Raises:
        FileNotFoundError: the folder holds no predictions.
        ValueError: a file is damaged, files are of several datasets, splits or checkpoints, a name would leave its
            folder, or a segment is given twice.
    """
    inner, counting = folder.folder(PREDICTIONS), row_groups_of(folder)
    found: dict[tuple[str, str], list[tuple[int, Row, dict[str, Any]]]] = {}
    made_of: dict[tuple[str, str, str], str] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # a video's names serve all its expressions
    for file, light in _light_rows_of(inner, counting):
        with _named(inner, file):
            for row, values in light:
                made_of.setdefault((values["dataset"], values["split"], values["fingerprint"]), file)
                names = tuple(values["frame_names"])
                values["frame_names"] = shared.setdefault(names, names)
                key = (values["video"], values["expression"])
                found.setdefault(key, []).append((values["start_frame"], row, values))
    if not found:
        raise FileNotFoundError(f"{inner.path()} holds no predictions. Run jobs/predict.py --out {folder.uri} first.")
    if len(made_of) > 1:
        listed = "; ".join(f"{file}: {', '.join(made)}" for made, file in sorted(made_of.items())[:5])
        raise ValueError(
            f"{inner.path()} mixes predictions of several datasets, splits or checkpoints ({listed}). Predict each "
            f"into a folder of its own."
        )
    entries = [_entry(sorted(rows, key=lambda row: row[:2])) for rows in found.values()]
    entries.sort(key=lambda entry: (entry.video, number_order(entry.expression)))
    return Predictions(inner, *next(iter(made_of)), tuple(entries))


Counting = Mapping[int, Collection[str]] | None
"""Row groups of a file that count, with the ids of the expressions in each that do not; None if everything counts."""


def row_groups_of(folder: Folder) -> dict[str, Counting]:
    """Returns the result files of a run, and which of their row groups count."""
    if not folder.has(LEDGER):
        return dict.fromkeys(folder.names(PREDICTIONS, ".parquet"))
    return counting_of(read_ledger(folder).rows.values())


def counting_of(rows_of_videos: Iterable[Sequence[Rows]]) -> dict[str, Counting]:
    """Returns the files of the rows of some videos, and which of their row groups count."""
    counting: dict[str, dict[int, Collection[str]]] = {}
    for rows in rows_of_videos:
        for one in rows:
            groups = range(one.first, one.first + one.groups)
            counting.setdefault(one.file, {}).update(dict.fromkeys(groups, one.without))
    return dict(sorted(counting.items()))


def _light_rows_of(
    inner: Folder, counting: Mapping[str, Counting]
) -> Iterator[tuple[str, Iterator[tuple[Row, dict[str, Any]]]]]:
    """Yields the rows of all files; many files are read at the same time."""

    def read(file: str) -> list[tuple[Row, dict[str, Any]]]:
        with _named(inner, file):
            return list(_light_rows(inner, file, counting[file]))

    for file, rows in zip(counting, at_once(read, counting), strict=True):
        yield file, iter(rows)


def _light_rows(folder: Folder, file: str, counting: Counting) -> Iterator[tuple[Row, dict[str, Any]]]:
    with folder.parquet(file) as parquet:
        if missing := sorted(set(PREDICTION_SCHEMA.names) - set(parquet.schema_arrow.names)):
            raise ValueError(f"it has no column {', '.join(missing)}: these are no predictions of this version")
        for group in range(parquet.num_row_groups) if counting is None else sorted(counting):
            without = () if counting is None else counting[group]
            rows = parquet.read_row_group(group, columns=_LIGHT, use_threads=False).to_pylist()
            for place, values in enumerate(rows):
                if values["expression"] in without:
                    continue
                msgspec.convert(values, _LightRow)
                if values["schema_version"] != PREDICTION_VERSION:
                    raise ValueError(
                        f"it has prediction version {values['schema_version']}, this code reads {PREDICTION_VERSION}. "
                        f"Predict again."
                    )
                for name in (values["video"], values["expression"], *values["frame_names"]):
                    safe_name(name)
                yield Row(file, group, place), values


def _row_groups(
    folder: Folder, wanted: Iterable[tuple[str, int]], columns: Sequence[str] | None = None
) -> Generator[pa.Table]:
    """Yields row groups in order, with some columns or all.

    Reads ahead as many as `_AHEAD_BYTES` hold, which hides the way to a store.
    """
    waiting: deque[Future[pa.Table]] = deque()
    most = 1
    with ThreadPoolExecutor(READERS) as readers:
        try:
            for file, group in wanted:
                waiting.append(readers.submit(_row_group, folder, file, group, columns))
                while len(waiting) > most:
                    table = waiting.popleft().result()
                    most = max(1, min(READERS, _AHEAD_BYTES // max(1, table.nbytes)))
                    yield table
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _row_group(folder: Folder, file: str, group: int, columns: Sequence[str] | None) -> pa.Table:
    names = PREDICTION_SCHEMA.names if columns is None else list(columns)
    with folder.parquet(file, names) as parquet:
        return parquet.read_row_group(group, columns=names, use_threads=False)


def _entry(rows: list[tuple[int, Row, dict[str, Any]]]) -> PredictionEntry:
    """Makes the entry of one expression of one video from its rows in order.

    Raises:
        ValueError: segments overlap, one is missing, a frame is named twice, or their sizes differ.
    """
    first = rows[0][2]
    what = f"{first['video']}, expression {first['expression']}"
    end, (_, before, _) = rows[0][0], rows[0]
    for start, row, values in rows:
        if start < end:
            raise ValueError(f"{what}: {before.file} and {row.file} both hold frame {start}. Delete one of them.")
        if start > end and values["status"] != "partial":
            raise ValueError(f"{what}: frames {end} … {start - 1} are missing before {row.file}. Predict again.")
        if (values["width"], values["height"]) != (first["width"], first["height"]):
            raise ValueError(f"{what}: {before.file} and {row.file} differ in frame size. Predict again.")
        end, before = start + len(values["frame_names"]), row
    names = first["frame_names"] if len(rows) == 1 else tuple(name for *_, row in rows for name in row["frame_names"])
    if len(set(names)) < len(names):
        raise ValueError(f"{what}: {before.file} names a frame twice. Predict again.")
    return PredictionEntry(
        video=first["video"],
        expression=first["expression"],
        text=first["text"],
        size=(first["height"], first["width"]),
        frame_names=names,
        start_frame=rows[0][0],
        external_id=first["external_id"],
        annotator=first["annotator"],
        rows=tuple(row for _, row, _ in rows),
    )


def _joined(parts: list[Prediction]) -> Prediction:
    """Joins the segments of one expression, given in order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if len({len(part.queries) for part in parts}) > 1:
        found = [len(part.queries) for part in parts]
        raise ValueError(f"{first.video}, expression {first.expression}: segments keep {found} queries. Predict again.")
    frames = sum(len(part.frame_names) for part in parts)
    statuses = {part.status for part in parts}
    whole = "partial" if "partial" in statuses else "ok" if "ok" in statuses else "absent"
    return replace(
        first,
        frame_names=_chained(part.frame_names for part in parts),
        queries=tuple(map(_joined_tracks, zip(*(part.queries for part in parts), strict=True))),
        score=sum(part.score * len(part.frame_names) for part in parts) / frames,
        status=whole,
        note="; ".join(part.note for part in parts if part.note),
        timestamps=_chained(part.timestamps for part in parts),
        merged=_chained(part.merged for part in parts),
    )


def _joined_tracks(tracks: tuple[QueryTrack, ...]) -> QueryTrack:
    return QueryTrack(
        rle=tuple(rle for track in tracks for rle in track.rle),
        boxes=tuple(box for track in tracks for box in track.boxes),
        scores=tuple(score for track in tracks for score in track.scores),
    )


def _chained(lists: Iterable[tuple[Any, ...] | None]) -> Any:
    """Concatenates lists; None if one of them is None."""
    whole: list[Any] = []
    for part in lists:
        if part is None:
            return None
        whole.extend(part)
    return tuple(whole)


@contextmanager
def _named(folder: Folder, file: str) -> Iterator[None]:
    """Prefixes errors with the file's name."""
    try:
        yield
    except DamagedFile:
        raise
    except (pa.ArrowException, OverflowError, UnicodeDecodeError) as error:
        raise damaged_file(folder.path(file), error) from error
    except ValueError as error:
        raise ValueError(f"{folder.path(file)}: {error}") from error


def read_segments(out: Folder, rows: Sequence[Rows]) -> Iterator[list[Prediction]]:
    """Yields, segment by segment, the rows of all expressions of a video from all its result files."""
    with ExitStack() as stack:
        files = [stack.enter_context(out.parquet(f"{PREDICTIONS}/{one.file}")) for one in rows]
        for number in range(max(one.groups for one in rows)):
            found: list[Prediction] = []
            for one, file in zip(rows, files, strict=True):
                if number < one.groups:
                    with _named(out.folder(PREDICTIONS), one.file):
                        group = file.read_row_group(one.first + number).to_pylist()
                        found += [prediction_of(row) for row in group if row["expression"] not in one.without]
            yield sorted(found, key=lambda row: row.expression)
