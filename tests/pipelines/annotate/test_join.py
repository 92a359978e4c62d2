"""The windows of a long video become one file for each group, and are gone when it is whole."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from pack import ROOT
from patience import PATIENCE
from pipelines.annotate.join import join_group
from pipelines.annotate.layout import SENTENCES_EACH, ExpressionGroup, expression_groups, write_group
from pipelines.annotate.tracks import SEGMENT_FRAMES, JoinSettings
from pipelines.annotate.window_rows import WINDOW_SCHEMA, WindowRow, windows_table
from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.ledger import Entry, Ledger, Rows, read_footer
from pipelines.prediction_reader import iter_predictions, read_segments
from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression
from sgmg.masks import mask_to_rle

RULES = JoinSettings(0.3, "f")
DOG, CAT, MAN = Expression("d", "the dog"), Expression("c", "the cat"), Expression("m", "a man")
BOX = (0.0, 0.0, 5.0, 3.0)
WHOLE = np.ones((4, 6), np.bool_)
FULL = mask_to_rle(WHOLE)
VIDEO = "v-0123456789"
SLOW = Failure("/v.mp4", "decode", "0.5 to 0.9 s: it took too long")


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


JOIN = """
import sys
import msgspec
from pipelines.annotate.layout import ExpressionGroup
from pipelines.annotate.join import join_group
from pipelines.files import Folder
from pipelines.annotate.tracks import JoinSettings
from pipelines.ledger import Entry

group = msgspec.json.decode(sys.argv[2], type=ExpressionGroup)
entry = Entry(group.video, "/v.mp4", "", "file", group.sentences)
_, entry = join_group(group, entry, Folder(sys.argv[1]), JoinSettings(0.3, "f"))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(entry.frames, int(peak.split()[1]) // 1024)
"""
"""Not ru_maxrss, which begins with what the process that started this one holds."""


def entry_of(group: ExpressionGroup) -> Entry:
    return Entry(VIDEO, "/v.mp4", "listed", "file", group.sentences, seconds=1.5)


def rows_of(group: ExpressionGroup, number: int, length: int = 5, mask: np.ndarray = WHOLE) -> list[WindowRow]:
    """A window without overlap, each frame with this mask; cats score too little."""
    (height, width), rle = mask.shape, mask_to_rle(mask)
    places = range(number * length, (number + 1) * length)
    return [
        WindowRow(Prediction(
            "videos", "", VIDEO, one.id, one.text, width, height, tuple(f"{t:05d}" for t in places),
            (QueryTrack((rle,) * length, (BOX,) * length, (0.1 if one == CAT else 0.9,) * length),),
            0.9, "", "/v.mp4", "file", timestamps=tuple(t / 10 for t in places),
        ))
        for one in group.expressions
    ]  # fmt: skip


def write_stretch(
    out: Folder, group: ExpressionGroup, number: int, windows: Sequence[list[WindowRow]], whole: bool = True
) -> None:
    with out.output(group.stretch(number, whole)) as stream, pq.ParquetWriter(stream, WINDOW_SCHEMA) as writer:
        for rows in windows:
            writer.write_table(windows_table(rows), row_group_size=max(1, len(rows)))


def group_with_stretches(
    out: Folder, *sentences: Expression, stretches: int = 3, length: int = 5, mask: np.ndarray = WHOLE
) -> ExpressionGroup:
    """A group whose stretches, of two windows each, are there."""
    (group,) = expression_groups(VIDEO, "file", "settings", sentences)
    write_group(out, group)
    for number in range(stretches):
        write_stretch(out, group, number, [rows_of(group, 2 * number + i, length, mask) for i in range(2)])
    return group


def test_rows_of_all_sentences_come_in_one_file_and_the_windows_go(out: Folder) -> None:
    group = group_with_stretches(out, DOG, CAT)
    size, entry = join_group(group, entry_of(group), out, RULES)
    assert size == out.size(f"predictions/{group.file}")
    assert entry == replace(entry_of(group), groups=1, frames=30, absent=1)
    assert read_footer(out, group.file) == [entry]
    cat, dog = iter_predictions(out)
    assert (cat.status, dog.status, dog.queries[0].rle) == ("absent", "ok", (FULL,) * 30)
    assert dog.frame_names == tuple(f"{t:05d}" for t in range(30))
    assert dog.fingerprint == "f"
    assert not out.has(f"windows/{VIDEO}")


def test_remarks_come_through_the_stretches_into_the_entry(out: Folder) -> None:
    group = group_with_stretches(out, DOG, stretches=1)
    said = ["another track", "another size"]
    write_stretch(out, group, 0, [[replace(row, remark=said[i]) for row in rows_of(group, i)] for i in range(2)])
    _, entry = join_group(group, entry_of(group), out, RULES)
    assert (entry.remark, entry.damage) == ("another track; another size", "")
    (row,) = iter_predictions(out)
    assert (row.status, row.note) == ("ok", entry.remark)


def test_joined_again_it_is_the_same(out: Folder) -> None:
    group = group_with_stretches(out, DOG)
    result = join_group(group, entry_of(group), out, RULES)
    before = out.read(f"predictions/{group.file}")
    assert join_group(group, entry_of(group), out, RULES) == result  # as if it had been killed after the windows went
    group_with_stretches(out, DOG)  # as if it had been killed before they went
    assert join_group(group, entry_of(group), out, RULES) == result
    assert out.read(f"predictions/{group.file}") == before
    assert not out.has(f"windows/{VIDEO}")


def test_where_windows_are_missing_those_that_there_are_stay(out: Folder) -> None:
    group = group_with_stretches(out, DOG)
    out.remove(group.stretch(1))
    write_stretch(out, group, 1, [rows_of(group, 2)], whole=False)
    _, entry = join_group(group, entry_of(group), out, RULES, [SLOW])
    assert (entry.frames, entry.damage, entry.failures, entry.final) == (25, SLOW.reason, (SLOW,), False)
    (row,) = iter_predictions(out)
    assert (row.status, row.note) == ("partial", SLOW.reason)
    write_stretch(out, group, 1, [rows_of(group, 2), rows_of(group, 3)])
    _, entry = join_group(group, entry_of(group), out, RULES)
    assert (entry.frames, entry.final) == (30, True)
    (row,) = iter_predictions(out)
    assert (row.status, len(row.frame_names)) == ("ok", 30)


def test_a_video_of_which_no_window_could_be_had_has_no_rows(out: Folder) -> None:
    (group,) = expression_groups(VIDEO, "file", "settings", [DOG])
    _, entry = join_group(group, entry_of(group), out, RULES, [SLOW])
    assert (entry.groups, entry.failures) == (0, (SLOW,))


def test_long_videos_are_rows_of_a_thousand_frames_in_groups_of_their_own(out: Folder) -> None:
    group = group_with_stretches(out, DOG, CAT, stretches=5, length=250)
    _, first = join_group(group, entry_of(group), out, RULES)
    assert (first.first_group, first.groups) == (0, 3)
    _, dog = iter_predictions(out)
    assert len(dog.frame_names) == 2500
    other = group_with_stretches(out, MAN, stretches=5, length=250)
    join_group(other, entry_of(other), out, RULES)
    parts = list(read_segments(out, [Rows(group.file, 0, 3), Rows(other.file, 0, 3)]))
    assert [[row.expression for row in rows] for rows in parts] == [["c", "d", "m"]] * 3
    assert [len(rows[0].frame_names) for rows in parts] == [SEGMENT_FRAMES, SEGMENT_FRAMES, 500]


def test_exports_read_what_the_ledger_says_counts(out: Folder) -> None:
    group = group_with_stretches(out, DOG)
    size, entry = join_group(group, entry_of(group), out, RULES)
    other = group_with_stretches(out, MAN)
    join_group(other, entry_of(other), out, RULES)
    ledger = Ledger("f")
    ledger.add(group.file, size, [entry])
    ledger.files[other.file] = out.size(f"predictions/{other.file}")
    out.write(f"predictions/kept-{other.file}", out.read(f"predictions/{other.file}"))
    ledger.write(out)
    assert {row.expression for row in iter_predictions(out)} == {
        "d",
        "m",
    }  # the copy is not named yet: its footer counts
    assert out.names("predictions") == sorted([group.file, f"kept-{other.file}"])


@pytest.mark.parametrize("sentences", [1, SENTENCES_EACH])
def test_a_long_join_peaks_like_a_short_one(out: Folder, sentences: int) -> None:
    noise = np.random.default_rng(0).random((120, 160) if sentences == 1 else (24, 32)) < 0.5
    expressions = [Expression(f"{number:03d}", "the dog") for number in range(sentences)]
    peaks = []
    for stretches in (20, 60):
        group = group_with_stretches(out, *expressions, stretches=stretches, length=50, mask=noise)
        words = [sys.executable, "-c", JOIN, out.uri, msgspec.json.encode(group).decode()]
        ran = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE)
        frames, peak = map(int, ran.stdout.split())
        assert frames == 100 * stretches
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 15 + sentences, peaks
    assert peaks[1] < 1000, peaks


def test_damage_is_result(out: Folder) -> None:
    (group,) = expression_groups(VIDEO, "file", "settings", [DOG])
    note = "2 of its frames are damaged"
    damaged = [WindowRow(replace(one.row, status="partial", note=note)) for one in rows_of(group, 0)]
    write_stretch(out, group, 0, [damaged])
    _, entry = join_group(group, entry_of(group), out, RULES)
    assert (entry.damage, entry.failures, entry.final) == ("2 of its frames are damaged", (), True)
