"""The row of prepared Parquet."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.records import Expression, ObjectTrack, Record, record_of, records_of, table_of

DOG = ObjectTrack(7, ("abc", None), "dog", False, (3.0, None), ((0.0, 1.0, 2.0, 3.5), None))
RECORD = Record(
    dataset="own",
    split="train",
    video="-a video",
    width=4,
    height=3,
    frame_names=("00000", "00005"),
    frames=(b"\xff\xd8", b""),
    objects=(DOG, ObjectTrack(8, ("", "d"))),
    expressions=(Expression("0", "the dog", (7,), "v_0", 2, (0,)), Expression("1", "both", (7, 8))),
    source="/data/own",
    source_fingerprint="0f",
    original_width=8,
    original_height=6,
    timestamps=(0.0, 0.5),
)


def test_a_record_survives_parquet(tmp_path: Path) -> None:
    pq.write_table(table_of([RECORD, replace(RECORD, video="b", timestamps=None, fps=25.0)]), tmp_path / "rows.parquet")
    first, second = records_of(pq.read_table(tmp_path / "rows.parquet"))
    assert first == RECORD
    assert (second.video, second.timestamps, second.fps) == ("b", None, 25.0)


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"schema version 99.*Prepare"):
        record_of({**RECORD.to_row(), "schema_version": 99})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": (b"",)}, "1 frames with 2 names"),
        ({"frames": (), "frame_names": ()}, "0 frames"),
        ({"objects": (ObjectTrack(7, ("a",)),)}, "object 7 has 1 rle for 2 frames"),
        ({"objects": (DOG,)}, r"'1' speaks of object \[8\], but there are only \[7\]"),
    ],
)
def test_a_record_that_contradicts_itself_is_not_made(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RECORD, **change)
