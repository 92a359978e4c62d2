"""Formats with a file for each video: written once, again where something changed, and failures noted."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from annotate_data import moving, write_video
from annotated_run import FILE, SIZE, AnnotatedRun, predicted_run, rows_of
from pipelines.annotate import video_formats
from pipelines.annotate.video_formats import (
    frames_note,
    videos_with_frames,
    write_one_cvat,
    write_one_video_frames,
)
from pipelines.inference.quarantine import write_quarantine
from pipelines.ledger import PREDICTIONS
from pipelines.predictions import predictions_table


@pytest.fixture
def run(tmp_path: Path) -> AnnotatedRun:
    return predicted_run(tmp_path)


def write(run: AnnotatedRun, video: str, digest: str = "rows") -> None:
    assert write_one_video_frames(run.out, video, run.places[video], digest, 100) == f"frames of {video}"


def times_of(run: AnnotatedRun, video: str) -> dict[str, int]:
    folder = Path(run.out.path(f"frames/{video}"))
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.iterdir())}


def test_a_second_run_writes_only_the_frames_that_are_missing(run: AnnotatedRun) -> None:
    video = next(iter(run.videos))
    write(run, video)
    before = times_of(run, video)
    assert list(before) == ["00000.jpg", "00002.jpg", "00004.jpg", "00006.jpg"]
    write(run, video)
    assert times_of(run, video) == before
    run.out.remove(f"frames/{video}/00004.jpg")
    write(run, video)
    after = times_of(run, video)
    assert [name for name in after if after[name] != before[name]] == ["00004.jpg"]
    write(run, video, digest="a sentence more")
    assert times_of(run, video) == after


def test_a_run_that_was_killed_goes_on(run: AnnotatedRun) -> None:
    video = next(iter(run.videos))
    write(run, video)
    before = times_of(run, video)
    run.out.remove(f"written/frames-{video}.json")
    run.out.remove(f"frames/{video}/00006.jpg")
    assert videos_with_frames(run.out, run.ledger) == frozenset()
    write(run, video)
    after = times_of(run, video)
    assert [name for name in after if after[name] != before[name]] == ["00006.jpg"]
    assert videos_with_frames(run.out, run.ledger) == {video}


def test_frames_of_another_version_of_a_video_are_replaced(run: AnnotatedRun) -> None:
    video, listed = next(iter(run.videos.items()))
    write(run, video)
    before = Path(run.out.path(f"frames/{video}/00000.jpg")).read_bytes()
    write_video(Path(listed.path), moving(9, 3, *SIZE), codec="libx264")
    changed = rows_of(listed, 3, fingerprint="2")
    with run.out.output(f"{PREDICTIONS}/{FILE}") as stream:
        pq.write_table(predictions_table(changed), stream)
    assert videos_with_frames(run.out, AnnotatedRun(run.out, {video: listed}, changed).ledger) == frozenset()
    write(run, video, digest="other rows")
    assert run.out.names(f"frames/{video}") == ["00000.jpg", "00002.jpg"]
    assert Path(run.out.path(f"frames/{video}/00000.jpg")).read_bytes() != before


def test_frames_that_nothing_is_known_of_are_written_over(run: AnnotatedRun) -> None:
    video = next(iter(run.videos))
    run.out.write(f"frames/{video}/00002.jpg", b"of whom?")
    run.out.write(f"frames/{video}/mine.jpg", b"mine")
    write(run, video)
    assert run.out.read(f"frames/{video}/00002.jpg")[:2] == b"\xff\xd8"
    assert run.out.read(f"frames/{video}/mine.jpg") == b"mine"
    before = times_of(run, video)
    write(run, video)
    assert times_of(run, video) == before


def test_a_video_that_is_gone_is_in_quarantine_until_it_is_back(run: AnnotatedRun) -> None:
    video, listed = next(iter(run.videos.items()))
    data = Path(listed.path).read_bytes()
    Path(listed.path).unlink()
    write(run, video)
    (failure,) = write_quarantine(run.out)
    assert (failure.video, failure.stage, failure.reason) == (
        listed.path, "frames", "the file is gone, or was never there",
    )  # fmt: skip
    assert frames_note(run.out, video) is None
    Path(listed.path).write_bytes(data)
    write(run, video)
    assert write_quarantine(run.out) == []
    assert videos_with_frames(run.out, run.ledger) == {video}


def test_xml_is_written_again_only_where_rows_changed(run: AnnotatedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    video = next(iter(run.videos))
    written = []
    whole = video_formats.write_cvat
    monkeypatch.setattr(video_formats, "write_cvat", lambda *values: written.append(1) or whole(*values))
    for digest in ("a", "a", "b"):
        assert write_one_cvat(run.out, video, run.places[video], digest, 100) == f"CVAT's XML of {video}"
    assert len(written) == 2
    assert run.out.has(f"cvat/{video}.xml")
