"""From windows to rows: those of a short video in memory, those of a long one from its stretches on disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow.parquet as pq

from pipelines.annotate.layout import ExpressionGroup, remove_windows, stretch_files
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.annotate.window_rows import WindowRow, window_row_of
from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.ledger import PREDICTIONS, Entry, add_footer, read_footer
from pipelines.predictions import PREDICTION_SCHEMA, Prediction, predictions_table
from sgmg.masks import rle_area


class RowWriter:
    """A result file: row groups of one video after another, and their entries in its footer. Use it in a `with` block.

    Args:
        stream: of the file.
    """

    def __init__(self, stream: object) -> None:
        self._writer = pq.ParquetWriter(stream, PREDICTION_SCHEMA, compression="zstd", write_page_checksum=True)
        self._groups = 0
        self.entries: list[Entry] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            add_footer(self._writer, (one for one in self.entries if one.groups))
        self._writer.close()

    def add(
        self,
        entry: Entry,
        windows: Iterable[Sequence[WindowRow]],
        settings: JoinSettings,
        failures: Sequence[Failure] = (),
    ) -> Entry:
        """Writes the rows of a video, and returns its entry with what is in them.

        Args:
            entry: with the sentences that were asked.
            windows: in order, each with the same sentences in the same order; perhaps none.
            settings: how windows become tracks.
            failures: why windows are missing.
        """
        missing = "; ".join(sorted(one.reason for one in failures))
        first, frames, notes = self._groups, 0, []
        present: set[str] = set()
        remarks: dict[str, None] = {}
        agreements: dict[str, float] = {}
        for rows in join_windows(_remarked(windows, remarks), settings, missing, agreements=agreements):
            table = predictions_table(rows)
            self._writer.write_table(table, row_group_size=len(table))
            self._groups += 1
            frames += len(rows[0].frame_names)
            notes += [row.note for row in rows[:1] if row.status == "partial"]
            present |= {row.expression for row in rows if _has_mask(row)}
        written = replace(
            entry,
            first_group=first,
            groups=self._groups - first,
            frames=frames,
            absent=len(entry.sentences) - len(present) if frames else 0,
            damage="; ".join(notes),
            remark="; ".join(remarks),
            agreements=tuple(agreements.get(id) for id, _ in entry.sentences) if agreements else (),
            failures=tuple(failures),
        )
        self.entries.append(written)
        return written


def _remarked(windows: Iterable[Sequence[WindowRow]], remarks: dict[str, None]) -> Iterator[Sequence[WindowRow]]:
    """Yields the windows, and keeps what is remarked of them."""
    for window in windows:
        remarks.update({one.remark: None for one in window[:1] if one.remark})
        yield window


def join_group(
    group: ExpressionGroup, entry: Entry, out: Folder, settings: JoinSettings, failures: Sequence[Failure] = ()
) -> tuple[int, Entry]:
    """Writes the rows of a group of a long video. If nothing is missing, deletes its windows.

    A retry or a second run gives the same result.

    Args:
        group: whose stretches are written.
        entry: of the video, with the sentences of the group.
        out: folder of the run.
        settings: how windows become tracks.
        failures: why windows are missing; the next run tries them again.

    Returns:
        Size of the result file in bytes, and its entry.

    Raises:
        ValueError: a stretch is damaged.
    """
    path = f"{PREDICTIONS}/{group.file}"
    files = stretch_files(out, group)
    if not files and out.has(path):  # an earlier attempt was killed after this point
        return out.size(path), read_footer(out, group.file)[0]
    with out.output(path) as stream:
        with RowWriter(stream) as writer:
            written = writer.add(entry, _windows(out, group, files), settings, failures)
        size = stream.tell()
    if written.final:
        remove_windows(out, group)
    return size, written


def _windows(out: Folder, group: ExpressionGroup, files: Sequence[str]) -> Iterator[list[WindowRow]]:
    """Yields the windows of a group, which are row groups of its stretches."""
    for name in files:
        with out.parquet(f"{group.folder}/{name}") as parquet:
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number, use_threads=False).to_pylist()
                yield [window_row_of(row) for row in rows]


def _has_mask(row: Prediction) -> bool:
    """Returns whether a row has a mask that is not empty."""
    size = (row.height, row.width)
    return any(rle_area(rle, size) for rle in set(row.queries[0].rle))
