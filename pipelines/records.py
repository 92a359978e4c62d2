"""The row of prepared Parquet: one video or image with its frames, objects and expressions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec
import pyarrow as pa

from pipelines.safety.limits import check_pixels

SCHEMA_VERSION = 2
"""Schema version, written into every row; readers refuse other versions. 2: `object_ids` may be null, `kind`."""


@dataclass(frozen=True, slots=True)
class ObjectTrack:
    """Annotations of one object over all frames of its record (spec data.md §2)."""

    id: int
    rle: tuple[str | None, ...]  # COCO compressed, at height x width of the frames; None: not annotated in this frame
    category: str = ""
    iscrowd: bool = False
    area: tuple[float | None, ...] | None = None  # pixels, only where the source gives them
    boxes: tuple[tuple[float, float, float, float] | None, ...] | None = None  # xyxy, only where the source gives them


@dataclass(frozen=True, slots=True)
class Expression:
    """A sentence and the objects it refers to: `()` if it refers to none, None if the truth is withheld."""

    id: str
    text: str
    object_ids: tuple[int, ...] | None = None
    external_id: str | None = None  # what result files call it
    annotator: int | None = None
    frames: tuple[int, ...] | None = None  # the annotated frames it is asked at, where not all
    kind: str = ""  # what its benchmark counts it under, such as static or reasoning

    @property
    def targets(self) -> tuple[int, ...]:
        """The objects it refers to, as far as they are known."""
        return self.object_ids or ()


@dataclass(frozen=True, slots=True)
class Record:
    """One video or image; frames are the encoded bytes of the source."""

    dataset: str
    split: str
    video: str
    width: int
    height: int
    frame_names: tuple[str, ...]
    frames: tuple[bytes, ...]
    objects: tuple[ObjectTrack, ...]
    expressions: tuple[Expression, ...]
    source: str  # where it came from, for people
    source_fingerprint: str  # of every byte it was made from
    original_width: int
    original_height: int
    segment: int = 0
    start_frame: int = 0
    fps: float | None = None
    timestamps: tuple[float, ...] | None = None  # seconds
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Checks the invariants that readers rely on.

        Raises:
            ValueError: the size is impossible, lists of frames differ in length, or an expression refers to an object
                that the record lacks.
        """
        check_pixels(self.height, self.width)
        t = len(self.frame_names)
        if t == 0 or len(self.frames) != t:
            raise ValueError(f"{self.video}: {len(self.frames)} frames with {t} names. Give one name a frame.")
        for track in self.objects:
            for name, values in (("rle", track.rle), ("boxes", track.boxes), ("area", track.area)):
                if values is not None and len(values) != t:
                    raise ValueError(f"{self.video}: object {track.id} has {len(values)} {name} for {t} frames.")
        known = {track.id for track in self.objects}
        for expression in self.expressions:
            if missing := set(expression.targets) - known:
                raise ValueError(
                    f"{self.video}: expression {expression.id!r} speaks of object {sorted(missing)}, but there are "
                    f"only {sorted(known)}."
                )

    def to_row(self) -> dict[str, Any]:
        """Converts to plain values in the order of `SCHEMA`."""
        return asdict(self)


_OBJECT = pa.struct(
    [
        ("id", pa.int64()),
        ("rle", pa.list_(pa.string())),
        ("category", pa.string()),
        ("iscrowd", pa.bool_()),
        ("area", pa.list_(pa.float64())),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
    ]
)
_EXPRESSION = pa.struct(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("object_ids", pa.list_(pa.int64())),
        ("external_id", pa.string()),
        ("annotator", pa.int32()),
        ("frames", pa.list_(pa.int32())),
        ("kind", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("video", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frame_names", pa.list_(pa.string())),
        ("frames", pa.list_(pa.large_binary())),
        ("objects", pa.list_(_OBJECT)),
        ("expressions", pa.list_(_EXPRESSION)),
        ("source", pa.string()),
        ("source_fingerprint", pa.string()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("segment", pa.int32()),
        ("start_frame", pa.int32()),
        ("fps", pa.float64()),
        ("timestamps", pa.list_(pa.float64())),
        ("schema_version", pa.int32()),
    ]
)
"""Schema of the Parquet files: the fields of `Record`, in order."""

assert SCHEMA.names == [field.name for field in fields(Record)]


def table_of(records: list[Record]) -> pa.Table:
    """Converts records to an Arrow table."""
    return pa.Table.from_pylist([record.to_row() for record in records], schema=SCHEMA)


def records_of(table: pa.Table) -> list[Record]:
    """Makes records of all rows of an Arrow table.

    Raises:
        ValueError: the row has another schema version.
    """
    return [record_of(row) for row in table.to_pylist()]


def record_of(row: Mapping[str, Any]) -> Record:
    """Makes a record of a row from `to_row` or Parquet.

    Raises:
        ValueError: the row has another schema version.
        msgspec.ValidationError: a value is of another type, or an invariant of `Record` does not hold.
    """
    if row["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{row['video']} has schema version {row['schema_version']}, this code reads {SCHEMA_VERSION}. "
            f"Prepare the data again."
        )
    return msgspec.convert(row, Record)
