"""The work of bulk inference: units, each of which becomes one Parquet file, and which of them are left to do."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pipelines.files import UNFINISHED, Folder
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.quarantine import FAILED, PREDICTIONS
from pipelines.manifest import Manifest, RowInfo


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows of one row group whose predictions share a file."""

    name: str  # of the file, without its ending
    rows: tuple[int, ...]
    videos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Units of one row group, which is read once for all of them."""

    file: str
    row_group: int
    units: tuple[Unit, ...]

    def to_json(self) -> str:
        """Plain text, to send to a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Part":
        """The part that `to_json` wrote."""
        values = json.loads(text)
        units = tuple(Unit(unit["name"], tuple(unit["rows"]), tuple(unit["videos"])) for unit in values["units"])
        return cls(values["file"], values["row_group"], units)


def plan(manifest: Manifest, protocol: InferenceProtocol) -> list[Part]:
    """All work there is: a unit a video, or a unit a row group of images."""
    parts = []
    for shard in manifest.shards:
        stem = shard.file.removesuffix(".parquet")
        for number, rows in enumerate(shard.row_groups):
            places = [tuple(range(len(rows)))] if protocol.images else [(place,) for place in range(len(rows))]
            units = tuple(_unit(f"{stem}-g{number:04d}", rows, some, protocol.images) for some in places)
            parts.append(Part(shard.file, number, units))
    return parts


def left_to_do(parts: Sequence[Part], out: Folder) -> list[Part]:
    """The parts with those of their units that are not done; a unit of which something failed is tried again."""
    there = {name.removesuffix(".parquet") for name in out.names(PREDICTIONS) if not name.startswith(UNFINISHED)}
    done = there - {name.removesuffix(".json") for name in out.names(FAILED, ".json")}
    left = [replace(part, units=tuple(unit for unit in part.units if unit.name not in done)) for part in parts]
    return [part for part in left if part.units]


def _unit(stem: str, rows: Sequence[RowInfo], places: tuple[int, ...], images: bool) -> Unit:
    name = stem if images else f"{stem}-r{places[0]:04d}"
    chosen = [rows[place] for place in places]
    return Unit(name, places, tuple(row.video for row in chosen))
