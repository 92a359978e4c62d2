"""Maps in which every sentence of a video has a number of its own."""

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipelines.exports.pngs import decode_object_map
from pipelines.exports.submission import EXPRESSIONS
from pipelines.exports.video_maps import MOST, paint, write_video_maps
from pipelines.files import Folder
from pipelines.images import voc_palette
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
        *maps, table = archive.namelist()
        assert (maps, table) == ([f"Annotations/v/{place:05d}.png" for place in range(count)], EXPRESSIONS)
        return [decode_object_map(archive.read(name), (4, 6)).tolist() for name in maps]


def test_sentences_are_numbered_by_id_and_the_likelier_one_is_above(tmp_path: Path) -> None:
    nine, ten = row("9", [LEFT, LEFT, EMPTY], [0.9, 0.4, 0.9]), row("10", [RIGHT, RIGHT, EMPTY], [0.5, 0.6, 0.1])
    found = maps_of(Folder(str(tmp_path)), [[ten], [nine]])
    assert found == [[[1, 1, 1, 1, 2, 2]] * 4, [[1, 1, 2, 2, 2, 2]] * 4, [[0] * 6] * 4]


def test_a_video_with_more_sentences_than_numbers_is_left_out(tmp_path: Path) -> None:
    rows = [row(str(number), [LEFT], [0.5]) for number in range(MOST + 1)]
    assert maps_of(Folder(str(tmp_path)), [rows]) == []
    assert len(maps_of(Folder(str(tmp_path)), [rows[:MOST]])) == 1


def table_of(out: Folder) -> list[dict[str, str]]:
    with zipfile.ZipFile(out.path("davis.zip")) as archive:
        return list(csv.DictReader(io.StringIO(archive.read(EXPRESSIONS).decode(), newline="")))


def test_a_table_says_which_value_of_a_pixel_is_which_sentence(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    said = 'a "red", wet\nünder'
    maps_of(out, [[row("10", [LEFT], [0.5])], [replace(row("9", [RIGHT], [0.6]), text=said)]])
    assert table_of(out) == [
        {"video": "v", "object_id": "1", "expression": "9", "text": said},
        {"video": "v", "object_id": "2", "expression": "10", "text": "a dog"},
    ]
    with zipfile.ZipFile(out.path("davis.zip")) as archive, Image.open(archive.open("Annotations/v/00000.png")) as png:
        assert png.mode == "P"
        assert bytes(png.getpalette() or []) == voc_palette(256), "an editor may paint what no mask holds yet"
        assert np.asarray(png)[0].tolist() == [2, 2, 1, 1, 1, 1]


def test_a_sentence_keeps_its_number_in_a_segment_that_another_one_lacks(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    first, second = [row("1", [LEFT], [0.5]), row("2", [RIGHT], [0.6])], [row("2", [RIGHT], [0.6])]
    second = [replace(one, frame_names=("00001",), segment=1, start_frame=1) for one in second]
    with (
        out.output("predictions/v.parquet") as stream,
        pq.ParquetWriter(stream, predictions_table(first).schema) as writer,
    ):
        writer.write_table(predictions_table(first))
        writer.write_table(predictions_table(second))
    assert write_video_maps({"v": [Rows("v.parquet", 0, 2)]}, out, "davis.zip") == 2
    with zipfile.ZipFile(out.path("davis.zip")) as archive:
        ids = decode_object_map(archive.read("Annotations/v/00001.png"))
    assert ids[0].tolist() == [0, 0, 2, 2, 2, 2]
    assert [line["object_id"] for line in table_of(out)] == ["1", "2"]


def test_later_numbers_are_above() -> None:
    assert paint([(2, LEFT), (1, RIGHT)], (4, 6)).tolist() == [[2, 2, 1, 1, 1, 1]] * 4


def test_rows_that_lack_frames_of_each_other_have_their_masks_in_the_right_ones(tmp_path: Path) -> None:
    """As where damage cost one expression a window: its segments end later in the video."""

    def part(id: str, rle: str, score: float, segment: int, names: Sequence[str]) -> Prediction:
        made = row(id, [rle] * len(names), [score] * len(names))
        return replace(made, frame_names=tuple(names), segment=segment, start_frame=2 * segment)

    whole = [part("1", LEFT, 0.5, 0, ["2", "9"]), part("1", LEFT, 0.5, 1, ["10", "11"])]
    damaged = [part("2", RIGHT, 0.6, 0, ["2", "10"]), part("2", RIGHT, 0.6, 1, ["11"])]
    out = Folder(str(tmp_path))
    for number, rows in enumerate((whole, damaged)):
        with out.output(f"predictions/v-{number}.parquet") as stream:
            pq.write_table(predictions_table(rows), stream, row_group_size=1)
    assert write_video_maps({"v": [Rows(f"v-{number}.parquet", 0, 2) for number in range(2)]}, out, "davis.zip") == 4
    with zipfile.ZipFile(out.path("davis.zip")) as archive:
        *maps, _ = archive.namelist()
        assert maps == [f"Annotations/v/{name}.png" for name in ("2", "9", "10", "11")]
        found = [decode_object_map(archive.read(name), (4, 6))[0].tolist() for name in maps]
    both, alone = [1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0]
    assert found == [both, alone, both, both]
