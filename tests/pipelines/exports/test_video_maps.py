"""Maps in which every sentence of a video has a number of its own."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.exports.pngs import decode_object_map
from pipelines.exports.video_maps import MOST, paint, write_video_maps
from pipelines.files import Folder
from pipelines.ledger import Rows
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from sgmg.masks import mask_to_rle

LEFT = mask_to_rle(np.arange(6)[None] < np.full((4, 1), 4))
RIGHT = mask_to_rle(np.arange(6)[None] >= np.full((4, 1), 2))
EMPTY = mask_to_rle(np.zeros((4, 6), np.bool_))


def row(expression: str, rles: Sequence[str], scores: Sequence[float]) -> Prediction:
    names = tuple(f"{place:05d}" for place in range(len(rles)))
    query = QueryTrack(tuple(rles), ((0.0, 0.0, 1.0, 1.0),) * len(rles), tuple(scores))
    return Prediction("videos", "", "v", expression, "a dog", 6, 4, names, (query,), 0.5, "", "/v.mp4", "")


def maps_of(out: Folder, files: Sequence[Sequence[Prediction]]) -> list[list[list[int]]]:
    for number, rows in enumerate(files):
        with out.output(f"predictions/v-{number}.parquet") as stream:
            pq.write_table(predictions_table(list(rows)), stream)
    count = write_video_maps(
        {"v": [Rows(f"v-{number}.parquet", 0, 1) for number in range(len(files))]}, out, "davis.zip"
    )
    with zipfile.ZipFile(out.path("davis.zip")) as archive:
        assert archive.namelist() == [f"Annotations/v/{place:05d}.png" for place in range(count)]
        return [decode_object_map(archive.read(name), (4, 6)).tolist() for name in archive.namelist()]


def test_sentences_are_numbered_by_id_and_the_likelier_one_is_above(tmp_path: Path) -> None:
    nine, ten = row("9", [LEFT, LEFT, EMPTY], [0.9, 0.4, 0.9]), row("10", [RIGHT, RIGHT, EMPTY], [0.5, 0.6, 0.1])
    found = maps_of(Folder(str(tmp_path)), [[ten], [nine]])
    assert found == [[[1, 1, 1, 1, 2, 2]] * 4, [[1, 1, 2, 2, 2, 2]] * 4, [[0] * 6] * 4]


def test_a_video_with_more_sentences_than_numbers_is_left_out(tmp_path: Path) -> None:
    rows = [row(str(number), [LEFT], [0.5]) for number in range(MOST + 1)]
    assert maps_of(Folder(str(tmp_path)), [rows]) == []
    assert len(maps_of(Folder(str(tmp_path)), [rows[:MOST]])) == 1


def test_later_numbers_are_above() -> None:
    assert paint([(2, LEFT), (1, RIGHT)], (4, 6)).tolist() == [[2, 2, 1, 1, 1, 1]] * 4
