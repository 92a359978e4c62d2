"""The writing stage of annotation: a result file for a shard of short videos, a file for a stretch of a long one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate.decode import PartContext, PartsContext
from pipelines.annotate.events import ShardDone, StretchDone
from pipelines.annotate.join import RowWriter
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.window_rows import WINDOW_SCHEMA, WindowRow, window_row, windows_table
from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.inference.answers import Answer
from pipelines.inference.messages import AnswersHeader, decode, decode_answers, encode
from pipelines.ledger import PREDICTIONS, Entry


@dataclass(frozen=True, slots=True)
class WriteStage:
    """A stage that writes what a shard holds, complete or not at all.

    Attributes:
        out: folder of the run.
        settings: how windows become tracks.
    """

    out: Folder
    settings: JoinSettings

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a `ShardDone` for each message, once its files are written."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, AnswersHeader)
            assert header is not None
            context = msgspec.json.decode(header.context, type=PartsContext)
            answers = decode_answers(payload)
            parts = list(_split(header, answers, context))
            if any(part.context.stretch is not None for part in parts):
                done = self._write_stretches(context, parts)
            else:
                done = self._write_shard(context, parts)
            yield encode(_with_counts(done, header, sum(map(bool, answers))))

    def _write_shard(self, context: PartsContext, parts: Sequence["_Part"]) -> ShardDone:
        lost = [
            Entry(seen.video, seen.path, seen.stamp, seen.fingerprint, (), failures=(seen.failure,))
            for seen in context.news.seen
            if seen.failure
        ]
        if not any(part.windows for part in parts):  # the next run finds out again why
            empty = [replace(part.entry, failures=tuple(part.failures)) for part in parts]
            return ShardDone(context.news, entries=(*empty, *lost))
        file = f"{context.name}.parquet"
        with self.out.output(f"{PREDICTIONS}/{file}") as stream:
            with RowWriter(stream) as writer:
                for part in parts:
                    writer.add(part.entry, part.windows, self.settings, part.failures)
            size = stream.tell()
        return ShardDone(context.news, file, size, (*writer.entries, *lost))

    def _write_stretches(self, context: PartsContext, parts: Sequence["_Part"]) -> ShardDone:
        stretches = []
        for part in parts:
            of, number = part.context, part.context.stretch
            assert number is not None
            if part.windows:
                path = of.group.stretch(number, whole=not part.failures)
                with (
                    self.out.output(path) as stream,
                    pq.ParquetWriter(stream, WINDOW_SCHEMA, compression="zstd", write_page_checksum=True) as writer,
                ):
                    for rows in part.windows:
                        writer.write_table(windows_table(rows), row_group_size=len(rows))
            stretches.append(StretchDone(of.video.id, of.group.name, number, tuple(part.failures)))
        return ShardDone(context.news, stretches=tuple(stretches))


@dataclass(slots=True)
class _Part:
    """The answers of one video and group: rows for each window, and why windows are missing."""

    context: PartContext
    windows: list[list[WindowRow]]
    failures: list[Failure]

    @property
    def entry(self) -> Entry:
        """Entry of the video, without what is in its rows."""
        of = self.context
        return Entry(
            video=of.video.id,
            path=of.video.path,
            stamp=of.video.stamp,
            fingerprint=of.fingerprint,
            sentences=of.group.sentences,
            seconds=of.seconds,
        )


def _split(header: AnswersHeader, answers: Sequence[Sequence[Answer]], context: PartsContext) -> Iterator[_Part]:
    """Yields the parts of a message with their rows."""
    index = 0
    for part in context.parts:
        windows: list[list[WindowRow]] = []
        failures = list(part.failures)
        for window in part.windows:
            record = header.records[index]
            for failure in header.failed.get(index, ()):
                reason = f"{window.start:.2f} to {window.stop:.2f} s: {failure.reason}"
                failures.append(Failure(part.video.path, failure.stage, reason))
            rows = [
                window_row(record, answer, header.fingerprint, window.damage, window.remark)
                for answer in answers[index]
            ]
            if rows:
                windows.append(rows)
            index += 1
        yield _Part(part, windows, failures)


def _with_counts(done: ShardDone, header: AnswersHeader, windows: int) -> ShardDone:
    return replace(
        done,
        news=done.news.with_retries(),
        windows=windows,
        frames=header.frames,
        crashes=header.crashes,
        waited=header.waited,
        busy=header.busy,
    )
