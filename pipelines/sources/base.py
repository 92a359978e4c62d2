"""What every source does: list its videos cheaply, then read one at a time, on any worker."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipelines.errors import Dropped
from pipelines.records import Record


@dataclass(frozen=True, slots=True)
class Item:
    """One record to be: its name, and the plain values its source needs to read it. Travels to workers as JSON."""

    video: str
    key: Any = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A record, and what was left out of it in the open."""

    record: Record
    dropped: tuple[Dropped, ...] = ()


class Source(Protocol):
    """One raw dataset, one split. Frozen and small: it is sent to every worker."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    def items(self) -> Sequence[Item]:
        """Every record there is to read, sorted by video; reads annotation files, opens no frame.

        Raises:
            LayoutError: the folder is not what the source expects; the message names the file and how to mend it.
        """
        ...

    def read(self, item: Item) -> Reading:
        """One record, with its frames as bytes.

        Raises:
            BadItem: it cannot be prepared, and why.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A source that knows of things that belong to none of its items."""

    def left_out(self) -> list[Dropped]:
        """What no item speaks of, with the reason; to be counted beside what readings drop.

        Raises:
            LayoutError: an annotation file is missing or damaged.
        """
        ...


def fingerprint(parts: Iterable[bytes | str]) -> str:
    """sha256 of everything a record was made from, in order and told apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
