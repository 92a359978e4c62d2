"""Units of work, and which are left."""

import json
from pathlib import Path

import pyarrow as pa

from pipelines.errors import Failure
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import decode_items, encode_item
from pipelines.inference.protocols import inference_protocol
from pipelines.inference.quarantine import FAILED, write_quarantine
from pipelines.manifest import QUARANTINE, read_manifest
from pipelines.predict.plan import Part, left_to_do, plan
from pipelines.prediction_reader import PREDICTIONS
from prepared_data import a_record, prepared_folder


def parts_of(folder: Path, dataset: str = "ref-youtube-vos") -> list[Part]:
    records = [a_record(f"v{number}", t=number + 1, dataset=dataset) for number in range(5)]
    manifest = read_manifest(Folder(str(prepared_folder(folder, records))))
    return plan(manifest, inference_protocol(dataset))


def test_every_video_is_a_unit_and_every_row_group_is_read_once(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    assert [(part.file[-23:-8], part.row_group) for part in parts] == [
        ("-00000-of-00002", 0),
        ("-00000-of-00002", 1),
        ("-00001-of-00002", 0),
    ]
    units = [unit for part in parts for unit in part.units]
    assert [unit.videos for unit in units] == [(f"v{number}",) for number in range(5)]
    assert units[1].name == "ref-youtube-vos-valid-00000-of-00002-g0000-r0001"
    assert len({unit.name for unit in units}) == 5


def test_images_of_a_row_group_share_a_unit(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, "refcoco")
    assert [unit.videos for part in parts for unit in part.units] == [("v0", "v1"), ("v2", "v3"), ("v4",)]


def test_a_part_survives_its_way_to_a_worker(tmp_path: Path) -> None:
    for part in parts_of(tmp_path):
        assert list(decode_items(pa.Table.from_pylist([encode_item(part)]), Part)) == [part]


def test_what_is_there_is_not_done_again_but_what_failed_is(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "data")
    out = Folder(str(tmp_path / "out"))
    names = [unit.name for part in parts for unit in part.units]
    for name in (names[0], names[1], names[2]):
        out.write(f"{PREDICTIONS}/{name}.parquet", b"")
    out.write(f"{PREDICTIONS}/{UNFINISHED}{names[4]}.parquet", b"")
    out.write(f"{FAILED}/{names[2]}.json", b"[]")
    left = left_to_do(parts, out)
    assert [unit.name for part in left for unit in part.units] == names[2:]
    assert [part.row_group for part in left] == [1, 0]


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
