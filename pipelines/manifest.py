"""Folders of prepared Parquet: the manifest, which describes every row, and reading one row group at a time."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from pipelines.files import Folder, safe_name
from pipelines.records import SCHEMA
from pipelines.safety.limits import MAX_FRAMES, MAX_SAMPLES, MAX_SENTENCES
from sgmg.json_text import parse_json

MANIFEST_VERSION = 3
"""Version of the manifest and of the shards' footers. 2: `anchor_counts`, which was `asked`. 3: `synthetic`."""

MANIFEST, QUARANTINE, DROPPED = "manifest.json", "quarantine.jsonl", "dropped.jsonl"
"""Files of a prepared folder: its description; the items that could not be used; what was left out of the others."""


SYNTHETIC = "SYNTHETIC.txt"
"""File at the top of raw data that were drawn: what is made of them is never taken for the dataset of that layout."""

_COUNTS = ("videos", "frames", "objects", "expressions")
"""Counts that every manifest has."""


@dataclass(frozen=True, slots=True)
class RowInfo:
    """Description of one row, enough to plan an epoch without reading it.

    `frames` counts the frames in which every object is annotated, or all if the truth is withheld: possible anchors.
    `anchor_counts` counts the annotated frames of each expression if expressions name them (A2D, JHMDB); None if each
    expression is about the whole video. `untrainable` maps the index of an expression that cannot be learned from to
    the reason: truth withheld, no target or one without a pixel, a crowd, a box without area.
    """

    video: str
    frames: int
    expressions: int
    anchor_counts: tuple[int, ...] | None = None
    untrainable: Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        """Checks what epochs are planned from.

        Raises:
            ValueError: a number is negative or absurd, or describes another number of expressions.
        """
        if not 0 <= self.frames <= MAX_FRAMES or not 0 <= self.expressions <= MAX_SENTENCES:
            raise ValueError(f"{self.frames} frames and {self.expressions} expressions are no row of prepared data")
        if self.frames * self.expressions > MAX_SAMPLES:
            raise ValueError(f"{self.frames} frames x {self.expressions} expressions are more than {MAX_SAMPLES}")
        counts = self.anchor_counts
        if counts is not None and (len(counts) != self.expressions or not all(0 <= n <= MAX_FRAMES for n in counts)):
            raise ValueError(f"its anchor_counts should be {self.expressions} numbers of frames")
        if self.untrainable and not all(0 <= index < self.expressions for index in self.untrainable):
            raise ValueError(f"untrainable should name some of its {self.expressions} expressions")


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file: its name in the folder, its size in bytes, and the rows of each row group."""

    file: str
    bytes: int
    row_groups: tuple[tuple[RowInfo, ...], ...]

    def __post_init__(self) -> None:
        """Checks the name, which is read beside the manifest.

        Raises:
            ValueError: it would leave the folder, or the size is negative.
        """
        safe_name(self.file)
        if self.bytes < 0:
            raise ValueError(f"its size is {self.bytes} bytes")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of a folder of prepared data, and how it was made.

    `counts`: videos, frames, objects, expressions, bytes. `dropped`: expressions, objects and frames left out, by
    reason. `source_fingerprint`: sha256 over those of all rows. `synthetic`: whether the data were drawn (`SYNTHETIC`).
    """

    dataset: str
    split: str
    config: Mapping[str, Any]
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    quarantined: int
    source_fingerprint: str
    shards: tuple[Shard, ...]
    synthetic: bool = False
    schema_version: int = MANIFEST_VERSION

    @property
    def title(self) -> str:
        """Name of the data for people."""
        return data_title(self.dataset, synthetic=self.synthetic)

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
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Reads the manifest that `to_json` wrote.

        Raises:
            ValueError: the text is not a manifest, or has another manifest version.
        """
        try:
            values = parse_json(text)
            version = values.get("schema_version") if isinstance(values, dict) else None
            if type(version) is int and version != MANIFEST_VERSION:
                raise ValueError(f"it has manifest version {version}, this code reads {MANIFEST_VERSION}")
            manifest = msgspec.convert(values, cls, str_keys=True)
            if low := [name for name in _COUNTS if manifest.counts.get(name, -1) < 0]:
                raise msgspec.ValidationError(f"Expected a number from 0 - at `$.counts.{low[0]}`")
            return manifest
        except (json.JSONDecodeError, msgspec.ValidationError) as error:
            raise ValueError(f"it is no manifest of prepared data ({error})") from error


def data_title(dataset: str, *, synthetic: bool) -> str:
    """Returns the name of data for people: drawn ones are not called like the dataset that lends them its layout.

    >>> data_title("refcoco", synthetic=True)
    'synthetic (layout of refcoco)'
    """
    return f"synthetic (layout of {dataset})" if synthetic else dataset


def read_manifest(folder: Folder) -> Manifest:
    """Reads the manifest of a prepared folder.

    Raises:
        FileNotFoundError: there is no manifest: nothing was prepared, or not to the end.
        ValueError: the manifest is damaged, or has another manifest version.
    """
    try:
        text = folder.read(MANIFEST)
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
        DamagedFile: it is damaged.
    """
    with folder.parquet(file, columns or SCHEMA.names) as parquet:
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
NO_TARGET = "sentence without target"


def annotated_frames(rles: Sequence[Sequence[str | None]]) -> list[int]:
    """Returns the frames in which every object has a mask, given the RLEs of each object: the possible anchors."""
    return [t for t, masks in enumerate(zip(*rles, strict=True)) if None not in masks]
