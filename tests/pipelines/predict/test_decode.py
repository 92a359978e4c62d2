"""Prepared rows become units of decoded frames, in tables of one row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.inference.messages import FramesHeader, decode, decode_frames, encode_item
from pipelines.inference.model_frames import ModelFrames, model_frames
from pipelines.inference.protocols import inference_protocol
from pipelines.manifest import read_manifest
from pipelines.predict.decode import DecodeStage
from pipelines.predict.plan import Unit, plan
from pipelines.records import Record
from prepared_data import a_record, prepared_folder


def items(*units: Unit) -> pa.Table:
    return pa.Table.from_pylist(list(map(encode_item, units)))


def opened(table: pa.Table) -> tuple[str, list[ModelFrames], tuple[Failure, ...]]:
    header, payload = decode(table, 0, FramesHeader)
    assert header is not None
    return header.unit, decode_frames(header, payload), header.failures


def decoded(folder: Path, records: list[Record]) -> list[pa.Table]:
    protocol = inference_protocol(records[0].dataset, short_side=80)
    data = Folder(str(prepared_folder(folder, records)))
    return list(DecodeStage(data, protocol)(items(*plan(read_manifest(data)))))


def assert_same(one: ModelFrames, other: ModelFrames) -> None:
    assert one.record == other.record
    assert one.numbers == other.numbers
    np.testing.assert_array_equal(one.frames, other.frames)


def test_decoded_frames_arrive_as_they_were_sent(tmp_path: Path) -> None:
    records = [a_record("dog", t=3), a_record("cat", t=1), a_record("cow", t=2)]
    tables = decoded(tmp_path, records)
    assert len(tables) == 2  # one for each row group
    found = [one for table in tables for one in opened(table)[1]]
    for record, one in zip(records, found, strict=True):
        assert_same(one, model_frames(record, inference_protocol("ref-youtube-vos", short_side=80)))
    assert not [failure for table in tables for failure in opened(table)[2]]


def test_images_of_different_size_travel_together(tmp_path: Path) -> None:
    upright = a_record("cat", t=1, dataset="refcoco")
    records = [replace(a_record("dog", t=1, dataset="refcoco"), expressions=()), upright]
    (table,) = decoded(tmp_path, records)
    _, asked, _ = opened(table)
    assert [one.frames.shape for one in asked] == [(0, 80, 112, 3), (1, 80, 112, 3)]


def test_a_frame_that_cannot_be_decoded_costs_only_its_video(tmp_path: Path) -> None:
    broken = replace(a_record("dog"), frames=(b"", b"no image"))
    (table,) = decoded(tmp_path, [broken, a_record("cat")])
    _, (cat,), (failure,) = opened(table)
    assert (cat.record.video, failure.video, failure.stage) == ("cat", "dog", "decode")
    assert "frame 00000" in failure.reason


def test_a_shard_that_cannot_be_read_costs_its_row_group(tmp_path: Path) -> None:
    records = [a_record(name) for name in ("dog", "cat", "cow")]
    folder = prepared_folder(tmp_path, records)
    data, protocol = Folder(str(folder)), inference_protocol("own")
    first, _ = plan(read_manifest(data))
    (shard,) = folder.glob("*.parquet")
    for content in (b"PAR1 and no more", None):
        shard.write_bytes(content) if content else shard.unlink()
        (table,) = DecodeStage(data, protocol)(items(first))
        failures = opened(table)[2]
        assert [(one.video, one.stage) for one in failures] == [("dog", "read"), ("cat", "read")]
        assert all(str(shard) in one.reason for one in failures)


def test_a_shard_that_is_not_the_one_of_the_manifest_is_said(tmp_path: Path) -> None:
    units = plan(read_manifest(Folder(str(prepared_folder(tmp_path, [a_record("dog")])))))
    prepared_folder(tmp_path, [a_record("cat")])
    (table,) = DecodeStage(Folder(str(tmp_path)), inference_protocol("own"))(items(*units))
    (failure,) = opened(table)[2]
    assert (failure.video, failure.stage) == ("dog", "read")
    assert "not what the manifest says" in failure.reason
