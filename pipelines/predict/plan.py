"""The work of bulk prediction: units, each of which becomes one Parquet file, and which of them are left to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import Manifest, RowInfo


@dataclass(frozen=True, slots=True)
class Unit:
    """A row group of prepared data, whose predictions share a file: some short videos, or some dozen images.

    Attributes:
        name: of the file, without its suffix.
        file, row_group: where the rows are.
        videos: the video of each row.
    """

    name: str
    file: str
    row_group: int
    videos: tuple[str, ...]


def plan(manifest: Manifest) -> list[Unit]:
    """Returns all work of a dataset: a unit for each row group."""
    return [
        _unit(shard.file, number, rows) for shard in manifest.shards for number, rows in enumerate(shard.row_groups)
    ]


def _unit(file: str, row_group: int, rows: Sequence[RowInfo]) -> Unit:
    stem = file.removesuffix(".parquet")
    return Unit(f"{stem}-g{row_group:04d}", file, row_group, tuple(row.video for row in rows))


def left_to_do(units: Sequence[Unit], out: Folder) -> list[Unit]:
    """Returns the units that are not done. A unit with a failure is tried again."""
    written = {name.removesuffix(".parquet") for name in out.names(PREDICTIONS)}
    done = written - {name.removesuffix(".json") for name in out.names(FAILED, ".json")}
    return [unit for unit in units if unit.name not in done]
