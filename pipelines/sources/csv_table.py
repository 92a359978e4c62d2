"""Tables as people and their spreadsheets write them: one reader for every CSV with a header."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.errors import LayoutError, shown

_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class CsvLine:
    """One line below the header.

    Attributes:
        number: of the line in the file, from 1; of its last line if a text has several.
        values: by column.
        problem: why there are no values; empty if there are.
        first: first field, for messages.
    """

    number: int
    values: dict[str, str]
    problem: str = ""
    first: str = ""


def csv_lines(
    text: str, path: str, required: Sequence[str], optional: Sequence[str] = (), *, strict: bool = True
) -> Iterator[CsvLine]:
    """Yields the lines of a table that are not blank.

    The header may be in any case, order and separator: comma, semicolon or tab. A line of empty fields is blank, and
    empty fields beyond the last column do not count.

    Args:
        text: of the file; a byte order mark does not count.
        path: of the file, for messages.
        required: columns that there have to be.
        optional: columns that there may be, too.
        strict: whether quotes have to be as CSV demands.

    Raises:
        LayoutError: the header lacks a column, or has another one or one twice; or a double quote is not closed.
    """
    text = text.removeprefix("\ufeff")
    headers = [_header(text, separator) for separator in _SEPARATORS]
    place = next((place for place, header in enumerate(headers) if set(required) <= set(header)), 0)
    header = headers[place]
    if not set(required) <= set(header) <= {*required, *optional} or len(set(header)) < len(header):
        wanted = f" and, if wanted, {', '.join(optional)}" if optional else ""
        found = shown(", ".join(header))[1:-1] or "none"
        raise LayoutError(
            f"{path} begins with the columns {found}. It needs {', '.join(required)}{wanted}, "
            f"separated by commas, semicolons or tabs."
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_SEPARATORS[place], strict=strict)
    try:
        next(reader, None)
        for fields in reader:
            if any(field.strip() for field in fields):
                yield _line(header, fields, reader.line_num)
    except csv.Error as error:
        raise LayoutError(f"{path}, line {reader.line_num}: {error}. Close every double quote.") from error


def headless_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields number and fields of the lines, without blank ones, of a table without header or quotes."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        separator = max(_SEPARATORS, key=line.count)  # the comma, if there is none
        if any(fields := _trimmed([field.strip() for field in line.split(separator)], 0)):
            yield number, fields


def _header(text: str, separator: str) -> list[str]:
    """Returns the names of the columns, without empty ones at the end."""
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return _trimmed([name.strip().lower() for name in header], 0)


def _line(header: list[str], fields: list[str], number: int) -> CsvLine:
    fields = _trimmed(fields, len(header))
    if len(fields) != len(header):
        problem = f"has {len(fields)} fields, not {len(header)}. Put a text with commas in double quotes."
        return CsvLine(number, {}, problem, fields[0])
    return CsvLine(number, dict(zip(header, fields, strict=True)), first=fields[0])


def _trimmed(fields: list[str], least: int) -> list[str]:
    """Returns the fields without empty ones at the end, but not fewer than `least`."""
    count = len(fields)
    while count > least and not fields[count - 1].strip():
        count -= 1
    return fields[:count]
