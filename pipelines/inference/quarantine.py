"""What could not be used: notes beside the results, and the quarantine made of them."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pipelines.files import Folder
from pipelines.manifest import QUARANTINE

PREDICTIONS, FAILED = "predictions", "failed"
"""Folders in a folder of predictions: a file a unit, and a note a unit of which something could not be used."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One video or image that could not be used, as a line of the quarantine says it."""

    video: str
    stage: str  # read, decode or predict
    reason: str


def reasons(failures: Sequence[Failure]) -> list[tuple[int, str, str]]:
    """How many failures have the same reason, the most frequent first: count, stage, reason without numbers."""
    counted = Counter((one.stage, re.sub(r"\d+([.,]\d+)*", "…", one.reason)) for one in failures)
    return [(count, stage, reason) for (stage, reason), count in counted.most_common()]


def write_failures(out: Folder, name: str, failures: Sequence[Failure]) -> None:
    """Keeps what could not be used of a video, or forgets what once could not."""
    path = f"{FAILED}/{name}.json"
    if failures:
        plain = [{"video": one.video, "stage": one.stage, "reason": one.reason} for one in failures]
        out.write(path, json.dumps(plain, ensure_ascii=False).encode())
    elif out.has(path):
        out.remove(path)


def write_quarantine(out: Folder) -> list[Failure]:
    """Everything that failed, sorted, written as quarantine.jsonl; removes what killed writers left."""
    for folder in (PREDICTIONS, FAILED):
        out.remove_unfinished(folder)
    failures = [
        Failure(**values)
        for name in out.names(FAILED, ".json")
        for values in json.loads(out.read(f"{FAILED}/{name}").decode())
    ]
    failures.sort(key=lambda failure: (failure.video, failure.stage))
    lines = [json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in failures]
    out.write(QUARANTINE, "".join(lines).encode())
    return failures
