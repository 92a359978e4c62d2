"""Verdicts of a person on answers: accepted, rejected, or to-correct, by video and expression.

The file is a CSV that the page exports, or review.csv with its column `verdict` filled in.
"""

from collections.abc import Mapping
from typing import TypeGuard, get_args

from pipelines.annotate.verdict_names import Verdict
from pipelines.errors import LayoutError
from pipelines.files import read_bytes
from pipelines.sources.csv_table import csv_lines

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
COLUMNS = ("video", "expression", "verdict")
_OTHERS = (
    "rank", "doubt", "text", "source", "score", "agreement", "flicker", "jumps", "frame", "time", "why", "note",
)  # fmt: skip


def read_verdicts(path: str) -> Mapping[tuple[str, str], Verdict]:
    """Returns the verdicts of a file by video id and expression id. Lines without a verdict are left out.

    Raises:
        LayoutError: the file is no UTF-8, has other columns, an unknown verdict, or two of one answer.
        OSError: the file does not exist, or cannot be read.
    """
    found: dict[tuple[str, str], Verdict] = {}
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise LayoutError(f"{path}, line {number}, is no UTF-8. Save it as CSV UTF-8.") from error
    for line in csv_lines(text, path, COLUMNS, _OTHERS):
        where = f"{path}, line {line.number}"
        if line.problem:
            raise LayoutError(f"{where} {line.problem}")
        verdict = line.values["verdict"].strip().lower().replace(" ", "-")
        if not verdict:
            continue
        if not _is_verdict(verdict):
            raise LayoutError(f"{where}: {verdict!r} is no verdict. Choose one of: {', '.join(VERDICTS)}.")
        key = (line.values["video"].strip(), line.values["expression"].strip())
        if found.setdefault(key, verdict) != verdict:
            raise LayoutError(f"{where}: {key[0]}, expression {key[1]}, is {found[key]!r} above. Keep one verdict.")
    return found


def _is_verdict(text: str) -> TypeGuard[Verdict]:
    return text in VERDICTS
