"""One shard: items are read, resized if requested, and written as one Parquet file that describes itself."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from pipelines.errors import FULL, BadItem, Dropped, LayoutError
from pipelines.files import Folder, damaged_file
from pipelines.manifest import RowInfo, without_none
from pipelines.prepare.resize import resized
from pipelines.prepare.row_info import row_info
from pipelines.records import SCHEMA, Record, table_of
from pipelines.sources.base import Item, Source
from pipelines.sources.sentences import MAX_TOKENS, token_upper_bound, too_long
from sgmg.expressions import normalize_expression
from sgmg.json_text import parse_json

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

GROUP, LARGEST_GROUP = 8 * 2**20, 16 * 2**20
"""Bytes of frames at which a row group is written, and its limit, which only a single larger row exceeds."""
ATTEMPTS, PAUSE = 3, 2.0
"""Attempts to write a shard if storage fails, and seconds before the second; doubled before each further one."""
_FOOTER = b"sgmg.shard"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Plan of a shard: its file, its items as JSON, and the sha256 of these and of the settings."""

    file: str
    items: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Footer:
    """Description of a shard, stored in the Parquet file's own metadata, so that both exist or neither.

    `counts`: videos, frames, objects, expressions, frame_bytes. `dropped`: how many things were left out for each
    reason; `left_out`: video, reason and name of each (footers of earlier versions lack it). `quarantined`: video,
    stage, reason of each unusable item.
    """

    fingerprint: str
    row_groups: tuple[tuple[RowInfo, ...], ...]
    row_fingerprints: tuple[str, ...]
    counts: dict[str, int]
    dropped: dict[str, int]
    quarantined: tuple[dict[str, str], ...]
    left_out: tuple[Dropped, ...] = ()


def items_to_json(items: Iterable[Item]) -> str:
    """Converts items to JSON, to send them to a worker; their keys are plain values."""
    return json.dumps([[item.video, item.key] for item in items])


def read_footer(out: Folder, file: str) -> Footer:
    """Reads the footer of a shard.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file is not a shard, or damaged.
    """
    try:
        with out.parquet(file) as parquet:
            values = parse_json((parquet.metadata.metadata or {})[_FOOTER])
        return msgspec.convert(values, Footer, str_keys=True)
    except (KeyError, json.JSONDecodeError, msgspec.ValidationError) as error:
        raise damaged_file(out.path(file), f"it lacks the description of a shard: {error}") from error


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writer of shards, on any worker. Holds one row group and one record in memory."""

    source: Source
    out: Folder
    short_side: int | None = None  # pixels; None: frames stay as they are
    quality: int = 95  # of resized frames
    tokenizer: str = ""  # JSON, to count the tokens of long sentences; without it an upper bound counts
    rejected: frozenset[tuple[str, str]] = frozenset()  # video and expression of answers that are not learned from

    def write(self, plan: ShardPlan) -> Footer:
        """Writes a shard and returns its footer. Unusable items are quarantined.

        Raises:
            OSError: storage failed at every attempt.
        """
        return _again_if_storage_fails(lambda: self._write(plan), f"{plan.file} in {self.out.uri}")

    def _write(self, plan: ShardPlan) -> Footer:
        with self.out.output(plan.file) as stream, _ShardFile(stream) as file:
            for video, key in json.loads(plan.items):
                try:
                    self._add(file, Item(video, key))
                except BadItem as bad:
                    file.quarantined.append({"video": bad.video, "stage": bad.stage, "reason": bad.reason})
                except Exception as error:
                    error.add_note(f"This happened while preparing {video!r} of {self.source.dataset} for {plan.file}.")
                    raise
            return file.finish(plan.fingerprint)

    def _add(self, file: "_ShardFile", item: Item) -> None:
        try:
            reading = self.source.read(item)
            record, too_long = self._with_fitting_sentences(reading.record)
            if self.short_side is not None:
                record = resized(record, self.short_side, self.quality)
            file.add(record, (*reading.dropped, *too_long))
        except (BadItem, LayoutError):
            raise
        except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, which is no text.
            reason = f"a name or text holds {error.object!r}, which is no Unicode text. Mend it in the annotations."
            raise BadItem(item.video, "list", reason) from error
        except (ValueError, OverflowError, pa.ArrowException) as error:  # of Record, or of numbers beyond its columns
            reason = f"its annotations contradict one another or hold impossible values ({error}). Mend them."
            raise BadItem(item.video, "list", reason) from error

    def _with_fitting_sentences(self, record: Record) -> tuple[Record, list[Dropped]]:
        """Returns the record without the sentences that no text encoder can take or a person rejected, and these."""
        kept, dropped = [], []
        for one in record.expressions:
            if (record.video, one.id) in self.rejected:
                dropped.append(Dropped(record.video, REJECTED, f"expression {one.id}: {one.text}"))
            elif reason := too_long(one.text, self._tokens):
                dropped.append(Dropped(record.video, TOO_LONG, f"expression {one.id}, {reason}: {one.text[:60]}…"))
            else:
                kept.append(one)
        return (replace(record, expressions=tuple(kept)) if dropped else record), dropped

    def _tokens(self, text: str) -> int:
        """Counts the tokens of a long sentence; without a tokenizer, at most so many."""
        if not self.tokenizer:
            return token_upper_bound(text)
        return len(_tokenizer(self.tokenizer).encode(normalize_expression(text)).ids)


TOO_LONG, REJECTED = f"sentence of more than {MAX_TOKENS} tokens", "rejected by its verdict"


@cache
def _tokenizer(text: str) -> tokenizers.Tokenizer:
    """Returns a tokenizer of the library, as `sgmg.tokenizer` would import torch."""
    found = tokenizers.Tokenizer.from_str(text)
    found.no_truncation()
    return found


@dataclass
class _ShardFile:
    """Parquet file that records are written to, row group by row group."""

    stream: pa.NativeFile
    quarantined: list[dict[str, str]] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)
    _pending: list[RowInfo] = field(default_factory=list)
    _pending_bytes: int = 0
    _row_groups: list[tuple[RowInfo, ...]] = field(default_factory=list)
    _fingerprints: list[str] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _left_out: list[Dropped] = field(default_factory=list)

    def __enter__(self) -> "_ShardFile":
        # No dictionaries, and statistics only where readers look for a video: frames would double the file's memory.
        options: Any = {"compression": _compression(), "use_dictionary": False, "write_statistics": ["video"]}
        options["write_page_checksum"] = True
        self._writer = pq.ParquetWriter(self.stream, SCHEMA, **options)
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, record: Record, dropped: Iterable[Dropped]) -> None:
        table, info = table_of([record]), row_info(record)
        size = sum(map(len, record.frames))
        if self._pending_bytes + size > LARGEST_GROUP:
            self._flush()
        self._tables.append(table)
        self._pending.append(info)
        self._pending_bytes += size
        self._fingerprints.append(record.source_fingerprint)
        self._left_out += dropped
        self._counts.update(
            videos=1,
            frames=len(record.frames),
            objects=len(record.objects),
            expressions=len(record.expressions),
            frame_bytes=size,
        )
        if self._pending_bytes >= GROUP:
            self._flush()

    def finish(self, fingerprint: str) -> Footer:
        self._flush()
        footer = Footer(
            fingerprint,
            tuple(self._row_groups),
            tuple(self._fingerprints),
            dict(sorted(self._counts.items())),
            dict(sorted(Counter(one.reason for one in self._left_out).items())),
            tuple(self.quarantined),
            tuple(self._left_out),
        )
        self._writer.add_key_value_metadata({_FOOTER: json.dumps(without_none(asdict(footer)))})
        return footer

    def _flush(self) -> None:
        if self._tables:
            table = pa.concat_tables(self._tables).combine_chunks()
            self._writer.write_table(table, row_group_size=len(table))
            self._row_groups.append(tuple(self._pending))
            self._tables, self._pending, self._pending_bytes = [], [], 0


def _compression() -> dict[str, str]:
    """Returns the codec of each Parquet column. Frames are compressed already."""
    sink = pa.BufferOutputStream()
    pq.write_table(SCHEMA.empty_table(), sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [columns.column(index).path for index in range(len(columns))]
    return {path: "none" if path.partition(".")[0] == "frames" else "zstd" for path in paths}


def _again_if_storage_fails(work: Callable[[], Result], what: str) -> Result:
    """Runs the work, and again if a network or disk fails; not if a file is missing."""
    for attempt in range(1, ATTEMPTS):
        try:
            return work()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if error.errno in FULL:  # nobody makes room in a few seconds
                raise
            pause = PAUSE * 2 ** (attempt - 1)
            _log.warning("%s: attempt %d failed (%s); again in %.0f s", what, attempt, error, pause)
            time.sleep(pause)
    return work()
