"""Sentences that speak of other objects."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.files import Folder
from pipelines.manifest import read_manifest, read_rows
from pipelines.records import Expression, ObjectTrack, record_of
from pipelines.scoring.shuffled import shuffled, write_shuffled
from pipelines.scoring.truth import VideoTruth
from prepared_data import a_record, prepared_folder
from sgmg.masks import mask_to_rle

ABOUT = {"0": (1,), "1": (1,), "2": (2,), "3": (3,)}


def test_every_sentence_is_taken_from_one_about_another_object() -> None:
    truth = VideoTruth("own", "valid", "v", (4, 4), ("0",), {}, tuple(Expression(id, id, ABOUT[id]) for id in ABOUT))
    asked = tuple(Expression(id, f"text of {id}") for id in ABOUT)
    found = shuffled(asked, truth)
    assert [one.id for one in found] == [*ABOUT]
    for one in found:
        assert ABOUT[one.text.removeprefix("text of ")] != ABOUT[one.id]


def test_a_sentence_stays_where_there_is_no_other_object() -> None:
    told = (Expression("0", "a", (1,)), Expression("1", "b", (1,)))
    truth = VideoTruth("own", "valid", "v", (4, 4), ("0",), {}, told)
    assert shuffled(told, truth) == told


def test_prepared_data_are_copied_with_everything_but_the_sentences(tmp_path: Path) -> None:
    records = []
    for name in ("dog", "cat", "cow"):
        record = a_record(name, sentences=("a", "b"))
        mask = mask_to_rle(np.ones((record.height, record.width), dtype=np.bool_))
        objects = tuple(ObjectTrack(id, (mask,) * 2) for id in (1, 2))
        told = (Expression("0", f"{name} one", (1,)), Expression("1", f"{name} two", (2,)))
        records.append(replace(record, objects=objects, expressions=told))
    prepared = prepared_folder(tmp_path / "prepared", records)
    out = Folder(str(tmp_path / "shuffled"))
    write_shuffled(Folder(str(prepared)), out, str(prepared))
    found = [
        record_of(row)
        for shard in read_manifest(out).shards
        for group in range(len(shard.row_groups))
        for row in read_rows(out, shard.file, group)
    ]
    assert [[one.text for one in record.expressions] for record in found] == [
        [f"{name} two", f"{name} one"] for name in ("dog", "cat", "cow")
    ]
    assert [replace(record, expressions=()) for record in found] == [
        replace(record, expressions=()) for record in records
    ]
    assert all(shard.bytes == out.size(shard.file) for shard in read_manifest(out).shards)

    made = out.read("manifest.json")
    write_shuffled(Folder(str(prepared)), out, "nowhere")  # it is there: nothing is read
    assert out.read("manifest.json") == made
