"""Failures of a run: a note for each video or unit, and the quarantine that is made of the notes."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from pipelines.errors import Failure
from pipelines.files import Folder, at_once
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import QUARANTINE

FAILED = "failed"
"""Folder, in that of a run, of the failure notes: a JSON file for each video or unit that has failures."""


def without_numbers(text: str) -> str:
    """Returns a text with its numbers left out, so that alike ones are equal.

    >>> without_numbers("0.00 to 1.50 s: 3 frames are damaged")
    '… to … s: … frames are damaged'
    """
    return re.sub(r"\d+([.,]\d+)*", "…", text)


def reasons(failures: Sequence[Failure]) -> list[tuple[int, str, str]]:
    """Returns count, stage and reason of failures that differ in numbers only, the most frequent first."""
    counted = Counter((one.stage, without_numbers(one.reason)) for one in failures)
    return [(count, stage, reason) for (stage, reason), count in counted.most_common()]


def write_failures(out: Folder, name: str, failures: Sequence[Failure]) -> None:
    """Writes the failure note of a video or unit; deletes an old note if there are no failures."""
    path = f"{FAILED}/{name}.json"
    if failures:
        plain = [{"video": one.video, "stage": one.stage, "reason": one.reason} for one in failures]
        out.write(path, json.dumps(plain, ensure_ascii=False).encode())
    else:
        out.remove(path, missing_ok=True)


def write_quarantine(out: Folder, more: Iterable[Failure] = ()) -> list[Failure]:
    """Writes all failures, sorted, to quarantine.jsonl, and returns them. Deletes what killed writers left.

    Args:
        out: folder of the run.
        more: failures that no file in failed/ tells of.
    """
    for folder in (PREDICTIONS, FAILED):
        out.remove_unfinished(folder)
    notes = at_once(lambda name: out.read(f"{FAILED}/{name}"), out.names(FAILED, ".json"))
    failures = [Failure(**values) for note in notes for values in json.loads(note)]
    failures = sorted({*failures, *more}, key=lambda one: (one.video, one.stage, one.reason))
    lines = [json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in failures]
    out.write(QUARANTINE, "".join(lines).encode())
    return failures
