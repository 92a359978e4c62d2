"""Which sentences are asked of which video: a CSV or JSONL table, or a list of sentences that goes for every video."""

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.errors import BadItem, LayoutError
from pipelines.files import read_bytes
from pipelines.video.listing import Video

REQUIRED = {"video", "expression"}
COLUMNS = ("video", "expression", "id")
MAX_TOKENS = 512
"""What RoBERTa has positions for."""

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression that is asked of a video.

    Args:
        id: unique within the video, fit for a file name. From the table, else made of the text, so that it stays when
            other rows come or go.
        text: without blanks at its ends.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Expressions:
    """The sentences of every video, by its path, in the order of the file; and the rows that cannot be used."""

    of: Mapping[str, tuple[Expression, ...]]
    problems: tuple[BadItem, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # the file and line, for people
    video: str | None  # None is every video
    text: str
    id: str


def token_upper_bound(text: str) -> int:
    """How many tokens a text has at worst: one a byte, as byte-level BPE begins with, and the two round a sentence."""
    return len(text.encode()) + 2


def read_expressions(
    path: str,
    videos: Sequence[Video],
    tokens: Callable[[str], int] = token_upper_bound,
    max_tokens: int = MAX_TOKENS,
) -> Expressions:
    """The sentences of a `.csv` or `.jsonl` of video, expression and, if wanted, id; or of a `.txt`, one a line.

    A video is named by its path or URI, by the end of it (`b/clip.mp4`), without suffix (`clip`) or by its id. The file
    is UTF-8, with or without a byte order mark; a row that is not is a problem of that row alone.

    Args:
        tokens: counts the tokens of a sentence as the checkpoint's tokenizer does; by default their upper bound.
        max_tokens: how many the text encoder takes.

    Raises:
        LayoutError: it is no such file, or its header lacks a column.
        OSError: it is not there, or may not be read.
    """
    found = _Found(videos, tokens, max_tokens)
    for row in _rows(path):
        if isinstance(row, BadItem):
            found.problems.append(row)
        else:
            found.add(row)
    of = {video.path: tuple(found.of[video.path]) for video in videos}
    return Expressions(of, tuple(found.problems))


class _Found:
    """Sentences as they come in, checked against the videos and against one another."""

    def __init__(self, videos: Sequence[Video], tokens: Callable[[str], int], max_tokens: int) -> None:
        self.videos, self.tokens, self.max_tokens = videos, tokens, max_tokens
        self.of: dict[str, list[Expression]] = defaultdict(list)
        self.problems: list[BadItem] = []
        self.named: dict[str, list[Video]] = defaultdict(list)
        for video in videos:
            for name in {video.id, *map(_composed, _endings(video))}:
                self.named[name].append(video)

    def add(self, row: _Row) -> None:
        """Takes a row, or the reason why not."""
        text = " ".join(row.text.split())
        if reason := self._wrong_with(row, text):
            who = "every video" if row.video is None else row.video or "?"
            self.problems.append(BadItem(who, "list", f"{row.where}: {reason}"))
            return
        id = row.id or hashlib.sha256(text.encode()).hexdigest()[:8]
        for video in self.videos if row.video is None else self.named[_composed(row.video)]:
            taken = self.of[video.path]
            if any(other.text == text for other in taken):
                reason = f"the expression {text!r} is there twice. Leave one out."
            elif any(other.id == id for other in taken):
                reason = f"the id {id!r} is there twice. Give each expression of a video its own."
            else:
                taken.append(Expression(id, text))
                continue
            self.problems.append(BadItem(video.path, "list", f"{row.where}: {reason}"))

    def _wrong_with(self, row: _Row, text: str) -> str:
        """Why a row cannot be used, whatever the others say; empty if it can."""
        if not text:
            return "the expression is empty. Say what to look for."
        if re.search("[\ud800-\udfff]", text):  # JSON can spell half a character
            return "the expression holds half a character (a lone surrogate). WriteStage it again."
        # The bound first: only what may be too long is worth a tokenizer's time.
        if token_upper_bound(text) > self.max_tokens and (count := self.tokens(text)) > self.max_tokens:
            return (
                f"the expression has {len(text)} characters, up to {count} tokens; the text encoder takes "
                f"{self.max_tokens}. Shorten it."
            )
        if row.id and not _ID.fullmatch(row.id):
            return f"the id {row.id!r} is no file name. Use up to 64 letters, digits, '_', later also '.' and '-'."
        if row.video is None:
            return ""
        meant = self.named.get(_composed(row.video), [])
        if not meant:
            return "no such video is among those listed. Mend its name, or add it to the videos."
        if len(meant) > 1:
            paths = " and ".join(video.path for video in meant[:2])
            return f"{len(meant)} videos are called so, {paths} among them. WriteStage more of the path."
        return ""


def _endings(video: Video) -> Iterator[str]:
    """Everything a person may call a video: its path, the ends of that, and these without suffix."""
    parts = video.path.split("/")
    stem = "" if video.images else PurePosixPath(video.path).suffix
    for first in range(len(parts)):
        ending = "/".join(parts[first:])
        if ending:
            yield ending
            yield ending.removesuffix(stem)


def _composed(name: str) -> str:
    """A name with é as one character: some systems store it as two."""
    return unicodedata.normalize("NFC", name).removeprefix("./")


def _rows(path: str) -> Iterator[_Row | BadItem]:
    data = read_bytes(path)
    name = PurePosixPath(path).name
    suffix = PurePosixPath(path).suffix.lower()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LayoutError(f"{path} is UTF-16. Save it as UTF-8.")
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    if suffix == ".csv":
        yield from _csv_rows(path, name, lines)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _json_rows(name, lines)
    elif suffix == ".txt":
        for number, line in enumerate(lines, start=1):
            where = f"{name}, line {number}"
            text = _decoded(line, where)
            if isinstance(text, BadItem):
                yield text
            elif text.strip():
                yield _Row(where, None, text, "")
    else:
        raise LayoutError(f"{path} ends with {suffix or 'nothing'}. Give a .csv, .jsonl or .txt file.")


def _csv_rows(path: str, name: str, lines: Sequence[bytes]) -> Iterator[_Row | BadItem]:
    # Bytes that are no UTF-8 come through as lone surrogates, and are found in the row they belong to.
    text = b"".join(lines).decode(errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if not set(header) >= REQUIRED or not set(header) <= set(COLUMNS) or len(set(header)) < len(header):
            raise LayoutError(
                f"{path} begins with the columns {', '.join(header) or 'none'}. It needs video, expression and, if "
                f"wanted, id, with commas between."
            )
        for fields in reader:
            if not fields:
                continue
            where = f"{name}, line {reader.line_num}"
            if len(fields) != len(header):
                yield BadItem(
                    fields[0], "list", f"{where}: {len(fields)} fields under {len(header)} columns. Quote commas."
                )
                continue
            whole = _decoded("\n".join(fields).encode(errors="surrogateescape"), where)
            row = dict(zip(header, fields, strict=True))
            yield whole if isinstance(whole, BadItem) else _row(row, where)
    except csv.Error as error:
        raise LayoutError(f"{path}, line {reader.line_num}: {error}. Close every double quote.") from error


def _json_rows(name: str, lines: Sequence[bytes]) -> Iterator[_Row | BadItem]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        text = _decoded(line, where)
        if isinstance(text, BadItem):
            yield text
        elif text.strip():
            try:
                row = json.loads(text)
                if not isinstance(row, dict) or not REQUIRED <= set(row) <= set(COLUMNS):
                    raise ValueError("it is no object of video, expression and, if wanted, id")
                if not isinstance(row["video"], str) or not isinstance(row["expression"], str):
                    raise ValueError("video and expression are not both texts")
            except ValueError as error:
                yield BadItem("?", "list", f"{where}: {error}")
            else:
                yield _row(row, where)


def _row(row: Mapping[str, object], where: str) -> _Row:
    id = row.get("id")
    return _Row(where, str(row["video"]).strip(), str(row["expression"]), "" if id is None else str(id).strip())


def _decoded(line: bytes, where: str) -> str | BadItem:
    """The text of a line, or what is wrong with its bytes and how it reads in the other common encoding."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        guess = line.decode("latin-1").strip()
        return BadItem("?", "list", f"{where} is not UTF-8. Save the file as UTF-8. As Latin-1 it reads {guess!r}.")
