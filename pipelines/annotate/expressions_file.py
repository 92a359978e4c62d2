"""Reads the expressions of each video: a CSV or JSONL table, or a list of expressions for every video."""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from pipelines.errors import BadItem, LayoutError
from pipelines.files import read_bytes, without_options
from pipelines.records import Expression
from pipelines.safety.secrets import redacted
from pipelines.sources.csv_table import csv_lines
from pipelines.sources.sentences import MAX_TOKENS, token_upper_bound
from pipelines.video.listing import Video
from sgmg.json_text import parse_json

REQUIRED = {"video", "expression"}
COLUMNS = ("video", "expression", "id")

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Expressions:
    """The contents of a file of expressions.

    Attributes:
        by_video: expressions by the path of the video, in the order of the file. Ids are unique within the video and
            safe as file names: from the table, else a hash of the text, so that they stay when other rows change.
        problems: rows that cannot be used.
    """

    by_video: Mapping[str, tuple[Expression, ...]]
    problems: tuple[BadItem, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # file and line, for people
    video: str | None  # None: every video
    text: str
    id: str


def read_expressions(
    path: str,
    videos: Sequence[Video],
    tokens: Callable[[str], int] = token_upper_bound,
    max_tokens: int = MAX_TOKENS,
) -> Expressions:
    """Reads a `.csv` or `.jsonl` with video, expression and optionally id, or a `.txt` with an expression on each line.

    A video is named by its path or URI (credentials do not count), by the last parts of it (`b/clip.mp4`), by these
    without suffix (`clip`), or by its id. The file is UTF-8, with or without a byte order mark; other bytes are a
    problem of their row alone.

    Args:
        path: of the file, local or a URI.
        videos: that the expressions may name.
        tokens: counts the tokens of an expression as the checkpoint's tokenizer does; by default an upper bound.
        max_tokens: most tokens that the text encoder takes.

    Raises:
        LayoutError: the file has another format, or its header lacks a column.
        OSError: the file does not exist, or cannot be read.
    """
    table = _ExpressionTable(videos, tokens, max_tokens)
    for row in _rows(path):
        if isinstance(row, BadItem):
            table.problems.append(row)
        else:
            table.add(row)
    by_video = {video.path: tuple(table.by_video[video.path]) for video in videos}
    return Expressions(by_video, tuple(table.problems))


class _ExpressionTable:
    """Collects rows, checked against the videos and against one another."""

    def __init__(self, videos: Sequence[Video], tokens: Callable[[str], int], max_tokens: int) -> None:
        self.videos, self.tokens, self.max_tokens = videos, tokens, max_tokens
        self.by_video: dict[str, list[Expression]] = defaultdict(list)
        self.problems: list[BadItem] = []

    @cached_property
    def _by_name(self) -> dict[str, list[Video]]:
        """The videos by all names that a row may use; a list of expressions for every video needs none."""
        found: dict[str, list[Video]] = defaultdict(list)
        for video in self.videos:
            for name in {video.id, *map(_nfc, _path_suffixes(video))}:
                found[name].append(video)
        return found

    def add(self, row: _Row) -> None:
        """Adds the expression of a row, or a problem."""
        text = " ".join(row.text.split())
        if reason := self._error_in(row, text):
            who = "every video" if row.video is None else row.video or "?"
            self.problems.append(BadItem(who, "list", f"{row.where}: {reason}"))
            return
        id = row.id or hashlib.sha256(text.encode()).hexdigest()[:8]
        for video in self.videos if row.video is None else self._by_name[_nfc(row.video)]:
            taken = self.by_video[video.path]
            if any(other.text == text for other in taken):
                reason = f"the expression {text!r} is listed twice. Remove one."
            elif any(other.id == id for other in taken):
                reason = f"the id {id!r} is used twice. Give each expression of a video its own id."
            else:
                taken.append(Expression(id, text))
                continue
            self.problems.append(BadItem(video.path, "list", f"{row.where}: {reason}"))

    def _error_in(self, row: _Row, text: str) -> str:
        """Returns why a row cannot be used, apart from the other rows; empty if it can be used."""
        if not text:
            return "the expression is empty. Write the object to look for."
        if re.search("[\ud800-\udfff]", text):  # JSON can spell half a character
            return "the expression contains half a character (a lone surrogate). Write it again."
        # The bound first: only what may be too long is worth a tokenizer's time.
        if token_upper_bound(text) > self.max_tokens and (count := self.tokens(text)) > self.max_tokens:
            return (
                f"the expression has {len(text)} characters, up to {count} tokens; the text encoder takes "
                f"{self.max_tokens}. Shorten it."
            )
        if row.id and not _ID.fullmatch(row.id):
            return (
                f"the id {row.id!r} cannot be a file name. Use up to 64 letters, digits and '_', and after the first "
                f"also '.' and '-'."
            )
        if row.video is None:
            return ""
        matches = self._by_name.get(_nfc(row.video), [])
        if not matches:
            return "the name matches none of the videos. Correct it, or add the video to --videos."
        if len(matches) > 1:
            paths = ", ".join(video.path for video in matches[:2]) + (", …" if len(matches) > 2 else "")
            return f"the name matches {len(matches)} videos ({paths}). Give a longer part of the path."
        return ""


def _path_suffixes(video: Video) -> Iterator[str]:
    """Yields the names that a row may use for a video: its path, the last parts of it, and these without suffix."""
    path = without_options(video.path)
    yield video.path
    parts = path.split("/")
    stem = "" if video.images else PurePosixPath(path).suffix
    for first in range(len(parts)):
        ending = "/".join(parts[first:])
        if ending:
            yield ending
            yield ending.removesuffix(stem)


def _nfc(name: str) -> str:
    """Returns a name with é as one character: some systems store it as two."""
    return unicodedata.normalize("NFC", name).removeprefix("./")


def _rows(path: str) -> Iterator[_Row | BadItem]:
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--expressions {path} does not exist. Give a file of sentences; a sentence itself goes to --text."
        ) from error
    name = PurePosixPath(without_options(path)).name
    suffix = PurePosixPath(name).suffix.lower()
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
        raise LayoutError(f"{path} has the suffix {suffix!r}. Give a .csv, .jsonl or .txt file.")


def _csv_rows(path: str, name: str, lines: Sequence[bytes]) -> Iterator[_Row | BadItem]:
    # Bytes that are not UTF-8 become lone surrogates, so that they are a problem of their row alone.
    text = b"".join(lines).decode(errors="surrogateescape")
    for line in csv_lines(text, path, ("video", "expression"), ("id",)):
        where = f"{name}, line {line.number}"
        if line.problem:
            yield BadItem(redacted(line.first), "list", f"{where} {line.problem}")
            continue
        whole = _decoded("\n".join(line.values.values()).encode(errors="surrogateescape"), where)
        yield whole if isinstance(whole, BadItem) else _row(line.values, where)


def _json_rows(name: str, lines: Sequence[bytes]) -> Iterator[_Row | BadItem]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        text = _decoded(line, where)
        if isinstance(text, BadItem):
            yield text
        elif text.strip():
            try:
                row = parse_json(text)
                if not isinstance(row, dict) or not REQUIRED <= set(row) <= set(COLUMNS):
                    raise ValueError("it must be an object with video, expression and optionally id")
                if not isinstance(row["video"], str) or not isinstance(row["expression"], str):
                    raise ValueError("video and expression must be strings")
            except ValueError as error:
                yield BadItem("?", "list", f"{where}: {error}")
            else:
                yield _row(row, where)


def _row(row: Mapping[str, object], where: str) -> _Row:
    id = row.get("id")
    video = redacted(str(row["video"]).strip())
    return _Row(where, video, str(row["expression"]), "" if id is None else str(id).strip())


def _decoded(line: bytes, where: str) -> str | BadItem:
    """Returns the text of a line, or a problem that shows how it reads in the other common encoding."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        guess = line.decode("latin-1").strip()
        return BadItem("?", "list", f"{where} is not UTF-8. Save the file as UTF-8. As Latin-1 it reads {guess!r}.")
