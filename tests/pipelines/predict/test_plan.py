"""Units of work, and which are left."""

import json
from pathlib import Path

import pyarrow as pa

from pipelines.errors import Failure
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import decode_items, encode_item
from pipelines.inference.quarantine import FAILED, write_quarantine
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import QUARANTINE, read_manifest
from pipelines.predict.plan import Unit, left_to_do, plan
from prepared_data import a_record, prepared_folder


def units_of(folder: Path) -> list[Unit]:
    records = [a_record(f"v{number}", t=number + 1) for number in range(5)]
    return plan(read_manifest(Folder(str(prepared_folder(folder, records)))))


def test_a_row_group_is_a_unit(tmp_path: Path) -> None:
    units = units_of(tmp_path)
    assert [(unit.file[-23:-8], unit.row_group, unit.videos) for unit in units] == [
        ("-00000-of-00002", 0, ("v0", "v1")),
        ("-00000-of-00002", 1, ("v2", "v3")),
        ("-00001-of-00002", 0, ("v4",)),
    ]
    assert units[1].name == "ref-youtube-vos-valid-00000-of-00002-g0001"


def test_a_unit_survives_its_way_to_a_worker(tmp_path: Path) -> None:
    units = units_of(tmp_path)
    assert list(decode_items(pa.Table.from_pylist(list(map(encode_item, units))), Unit)) == units


def test_what_is_there_is_not_done_again_but_what_failed_is(tmp_path: Path) -> None:
    units = units_of(tmp_path / "data")
    out = Folder(str(tmp_path / "out"))
    for unit in units[:2]:
        out.write(f"{PREDICTIONS}/{unit.name}.parquet", b"")
    out.write(f"{PREDICTIONS}/{UNFINISHED}{units[2].name}.parquet", b"")
    out.write(f"{FAILED}/{units[1].name}.json", b"[]")
    assert left_to_do(units, out) == units[1:]


def test_the_quarantine_is_what_failed_and_the_unfinished_is_removed(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    for unit, video in (("a", "zebra"), ("b", "ant")):
        failure = {"video": video, "stage": "decode", "reason": "ü is no image"}
        out.write(f"{FAILED}/{unit}.json", json.dumps([failure]).encode())
    out.write(f"{PREDICTIONS}/{UNFINISHED}x.parquet", b"")
    assert write_quarantine(out) == [Failure(video, "decode", "ü is no image") for video in ("ant", "zebra")]
    lines = out.read(QUARANTINE).decode().splitlines()
    assert [json.loads(line)["video"] for line in lines] == ["ant", "zebra"]
    assert out.names(PREDICTIONS) == []


def test_without_failures_the_quarantine_is_empty(tmp_path: Path) -> None:
    assert write_quarantine(Folder(str(tmp_path))) == []
    assert (tmp_path / QUARANTINE).read_bytes() == b""
