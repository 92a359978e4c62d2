"""Folders of prepared Parquet: the manifest, which describes every row, and reading one row group at a time."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from pipelines.files import Folder

MANIFEST_VERSION = 2
"""Version of the manifest and of the shards' footers. 2: `anchor_counts`, which was `asked`."""

MANIFEST, QUARANTINE, DROPPED = "manifest.json", "quarantine.jsonl", "dropped.jsonl"
"""Files of a prepared folder: its description; the items that could not be used; what was left out of the others."""


@dataclass(frozen=True, slots=True)
class RowInfo:
    """Description of one row, enough to plan an epoch without reading it.

    `frames` counts the frames in which every object is annotated, or all if the truth is withheld: possible anchors.
    `anchor_counts` counts the annotated frames of each expression if expressions name them (A2D, JHMDB); None if each
    expression is about the whole video. `untrainable` maps the index of an expression that cannot be learned from to
    the reason: truth withheld, a crowd, a box without area.
    """

    video: str
    frames: int
    expressions: int
    anchor_counts: tuple[int, ...] | None = None
    untrainable: Mapping[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file: its name in the folder, its size in bytes, and the rows of each row group."""

    file: str
    bytes: int
    row_groups: tuple[tuple[RowInfo, ...], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of a folder of prepared data, and how it was made.

    `counts`: videos, frames, objects, expressions, bytes. `dropped`: expressions, objects and frames left out, by
    reason. `source_fingerprint`: sha256 over those of all rows.
    """

    dataset: str
    split: str
    config: Mapping[str, Any]
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    quarantined: int
    source_fingerprint: str
    shards: tuple[Shard, ...]
    schema_version: int = MANIFEST_VERSION

    @property
    def rows(self) -> list[RowInfo]:
        """Rows of all shards, in order."""
        return [row for shard in self.shards for group in shard.row_groups for row in group]

    @property
    def single_images(self) -> bool:
        """True if no row has more than one frame, annotated or not."""
        return self.counts["frames"] == self.counts["videos"]

    @property
    def untrainable(self) -> Counter[str]:
        """Number of expressions that cannot be learned from, by reason."""
        return Counter(reason for row in self.rows for reason in (row.untrainable or {}).values())

    @property
    def usable(self) -> int:
        """Number of expressions that can be learned from, or predicted where the truth is withheld."""
        return self.counts["expressions"] - self.untrainable.total() + self.untrainable[WITHHELD]

    def to_json(self) -> str:
        """Converts the manifest to readable JSON, one shard per line; `from_json` reads it back."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "shards"}
        head = json.dumps(values, indent=2, ensure_ascii=False)
        shards = ",\n".join(
            f"    {json.dumps(without_none(asdict(shard)), ensure_ascii=False)}" for shard in self.shards
        )
        return f'{head[:-2]},\n  "shards": [\n{shards}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads the manifest that `to_json` wrote.

        Raises:
            ValueError: the text is not a manifest, or has another manifest version.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if version != MANIFEST_VERSION:
                raise ValueError(f"it has manifest version {version}, this code reads {MANIFEST_VERSION}")
            shards = msgspec.convert(values.pop("shards"), tuple[Shard, ...], str_keys=True)
            return cls(**values, shards=shards)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, msgspec.ValidationError) as error:
            raise ValueError(f"it is no manifest of prepared data ({error})") from error


def read_manifest(folder: Folder) -> Manifest:
    """Reads the manifest of a prepared folder.

    Raises:
        FileNotFoundError: there is no manifest: nothing was prepared, or not to the end.
        ValueError: the manifest is damaged, or has another manifest version.
    """
    try:
        text = folder.read(MANIFEST).decode()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder.path()} holds no {MANIFEST}: nothing was prepared there, or not to the end. Run "
            f"jobs/prepare.py --out {folder.uri} (again), or correct the path."
        ) from error
    try:
        return Manifest.from_json(text)
    except ValueError as error:
        raise ValueError(f"{folder.path(MANIFEST)}: {error}. Prepare the data again.") from error


def read_rows(folder: Folder, file: str, row_group: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Reads the rows of one row group, or some of their columns, as plain values; `records.record_of` makes records of
    whole rows.

    Raises:
        FileNotFoundError: the shard does not exist.
    """
    with folder.parquet(file) as parquet:
        return parquet.read_row_group(row_group, columns=columns, use_threads=False).to_pylist()


def without_none(value: Any) -> Any:
    """Returns JSON values without the fields that are None, at any depth."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value


WITHHELD = "truth withheld"
CROWD = "crowd annotation"
NO_AREA = "box without area"
NO_PIXELS = "object without pixels"


def annotated_frames(rles: Sequence[Sequence[str | None]]) -> list[int]:
    """Returns the frames in which every object has a mask, given the RLEs of each object: the possible anchors."""
    return [t for t, masks in enumerate(zip(*rles, strict=True)) if None not in masks]
