"""The work of bulk prediction: units, each of which becomes one Parquet file, and which of them are left to do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.files import UNFINISHED, Folder
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.quarantine import FAILED
from pipelines.manifest import Manifest, RowInfo
from pipelines.prediction_reader import PREDICTIONS


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows of one row group whose predictions share a file.

    Attributes:
        name: of the file, without its suffix.
        rows: their indices in the row group.
        videos: the video of each row.
    """

    name: str
    rows: tuple[int, ...]
    videos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Units of one row group, which is read once for all of them."""

    file: str
    row_group: int
    units: tuple[Unit, ...]


def plan(manifest: Manifest, protocol: InferenceProtocol) -> list[Part]:
    """Returns all work of a dataset: a unit for each video, or for each row group of images."""
    parts = []
    for shard in manifest.shards:
        stem = shard.file.removesuffix(".parquet")
        for number, rows in enumerate(shard.row_groups):
            indices = [tuple(range(len(rows)))] if protocol.images else [(i,) for i in range(len(rows))]
            units = tuple(_unit(f"{stem}-g{number:04d}", rows, some, protocol.images) for some in indices)
            parts.append(Part(shard.file, number, units))
    return parts


def left_to_do(parts: Sequence[Part], out: Folder) -> list[Part]:
    """Returns the parts with those of their units that are not done. A unit with a failure is tried again."""
    written = {name.removesuffix(".parquet") for name in out.names(PREDICTIONS) if not name.startswith(UNFINISHED)}
    done = written - {name.removesuffix(".json") for name in out.names(FAILED, ".json")}
    left = [replace(part, units=tuple(unit for unit in part.units if unit.name not in done)) for part in parts]
    return [part for part in left if part.units]


def _unit(stem: str, rows: Sequence[RowInfo], indices: tuple[int, ...], images: bool) -> Unit:
    name = stem if images else f"{stem}-r{indices[0]:04d}"
    return Unit(name, indices, tuple(rows[i].video for i in indices))
