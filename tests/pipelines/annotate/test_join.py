"""The windows of a group become one file, and are gone when it is whole."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from pack import ROOT
from patience import PATIENCE
from pipelines.annotate.join import join_group
from pipelines.annotate.layout import ExpressionGroup, expression_group, write_group
from pipelines.annotate.tracks import SEGMENT_FRAMES, JoinSettings
from pipelines.files import Folder
from pipelines.prediction_reader import iter_predictions, read_segments
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from pipelines.records import Expression
from sgmg.masks import mask_to_rle

RULES = JoinSettings(0.3, False, "f")
DOG, CAT, MAN = Expression("d", "the dog"), Expression("c", "the cat"), Expression("m", "a man")
BOX = (0.0, 0.0, 5.0, 3.0)
WHOLE = np.ones((4, 6), np.bool_)
FULL = mask_to_rle(WHOLE)


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


JOIN = """
import resource, sys
import msgspec
from pipelines.annotate.layout import ExpressionGroup
from pipelines.annotate.join import join_group
from pipelines.files import Folder
from pipelines.annotate.tracks import JoinSettings

group = msgspec.json.decode(sys.argv[2], type=ExpressionGroup)
joined = join_group(group, range(int(sys.argv[3])), "file", Folder(sys.argv[1]), JoinSettings(0.3, False, "f"))
print(joined.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def group_with_windows(
    out: Folder, *sentences: Expression, windows: int = 3, length: int = 5, mask: np.ndarray = WHOLE
) -> ExpressionGroup:
    """A group whose windows are there, without overlap, each frame with this mask; cats score too little."""
    (height, width), rle = mask.shape, mask_to_rle(mask)
    group = expression_group("v-0123456789", "file", "settings", sentences)
    write_group(out, group)
    for number in range(windows):
        places = range(number * length, (number + 1) * length)
        rows = [
            Prediction(
                "videos", "", "v-0123456789", sentence.id, sentence.text, width, height,
                tuple(f"{t:05d}" for t in places),
                (QueryTrack((rle,) * length, (BOX,) * length, (0.1 if sentence == CAT else 0.9,) * length),),
                0.9, "", "/v.mp4", "file", segment=number, timestamps=tuple(t / 10 for t in places),
            )
            for sentence in sentences
        ]  # fmt: skip
        with out.output(group.window(number)) as stream:
            pq.write_table(predictions_table(rows), stream)
    return group


def test_rows_of_all_sentences_come_in_one_file_and_the_windows_go(out: Folder) -> None:
    group = group_with_windows(out, DOG, CAT)
    result = join_group(group, (2, 0, 1), "file", out, RULES)
    assert (result.frames, result.sentences, result.absent, result.note) == (15, 2, 1, "")
    cat, dog = iter_predictions(out)
    assert (cat.status, dog.status, dog.queries[0].rle) == ("absent", "ok", (FULL,) * 15)
    assert dog.fingerprint == "f"
    marker = json.loads(out.read(group.marker))
    assert marker["fingerprint"] == "file"
    assert marker["sentences"] == [["c", "the cat"], ["d", "the dog"]]
    assert not out.has("windows/v-0123456789")


def test_joined_again_it_is_the_same(out: Folder) -> None:
    group = group_with_windows(out, DOG)
    result = join_group(group, (0, 1, 2), "file", out, RULES)
    before = out.read(group.result)
    group_with_windows(out, DOG)  # as if it had been killed before they went
    assert join_group(group, (0, 1, 2), "file", out, RULES) == result
    assert out.read(group.result) == before
    assert not out.has("windows/v-0123456789")


def test_what_is_missing_leaves_no_marker_and_the_windows_stay(out: Folder) -> None:
    group = group_with_windows(out, DOG)
    result = join_group(group, (0, 2), "file", out, RULES, "0.5 to 0.9 s: it took too long")
    assert (result.frames, result.note) == (10, "0.5 to 0.9 s: it took too long")
    assert not out.has(group.marker)
    assert out.has(group.window(1))
    (row,) = iter_predictions(out)
    assert (row.status, row.note) == ("partial", "0.5 to 0.9 s: it took too long")
    assert not join_group(group, (0, 1, 2), "file", out, RULES).note
    (row,) = iter_predictions(out)
    assert (row.status, len(row.frame_names)) == ("ok", 15)


def test_a_window_that_is_gone_is_said_and_nothing_is_written(out: Folder) -> None:
    group = group_with_windows(out, DOG)
    out.remove(group.window(1))
    with pytest.raises(FileNotFoundError, match=r"00000001\.parquet"):
        join_group(group, (0, 1, 2), "file", out, RULES)
    assert out.names("predictions") == []


def test_long_videos_are_rows_of_a_thousand_frames_in_groups_of_their_own(out: Folder) -> None:
    group = group_with_windows(out, DOG, CAT, windows=5, length=500)
    join_group(group, range(5), "file", out, RULES)
    with out.open(group.result) as source:
        assert pq.ParquetFile(source).num_row_groups == 3
    _, dog = iter_predictions(out)
    assert len(dog.frame_names) == 2500
    other = group_with_windows(out, MAN, windows=5, length=500)
    join_group(other, range(5), "file", out, RULES)
    parts = list(read_segments(out, [group.result, other.result]))
    assert [[row.expression for row in rows] for rows in parts] == [["c", "d", "m"]] * 3
    assert [len(rows[0].frame_names) for rows in parts] == [SEGMENT_FRAMES, SEGMENT_FRAMES, 500]


def test_a_long_join_peaks_like_one_of_two_rows(out: Folder) -> None:
    noise = np.random.default_rng(0).random((120, 160)) < 0.5  # 9 kB a frame: 37 MB more in the long one
    peaks = []
    for windows in (20, 60):
        group = group_with_windows(out, DOG, windows=windows, length=100, mask=noise)
        words = [sys.executable, "-c", JOIN, out.uri, msgspec.json.encode(group).decode(), str(windows)]
        ran = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE)
        frames, peak = map(int, ran.stdout.split())
        assert frames == 100 * windows
        peaks.append(peak)
        out.remove(group.marker)
    assert peaks[1] - peaks[0] < 15, peaks


def test_damage_is_result(out: Folder) -> None:
    group = group_with_windows(out, DOG, windows=1)
    with out.open(group.window(0)) as source:
        (row,) = pq.read_table(source).to_pylist()
    table = predictions_table([])
    row = {**row, "status": "partial", "note": "2 of its frames are damaged"}
    with out.output(group.window(0)) as stream:
        pq.write_table(table.from_pylist([row], schema=table.schema), stream)
    assert join_group(group, (0,), "file", out, RULES).note == "2 of its frames are damaged"
    assert out.has(group.marker)
