"""The requests of a run: which videos, with which expressions."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.annotate.expressions_file import token_upper_bound
from pipelines.annotate.plan import AnnotationRequest
from pipelines.annotate.requests import LISTED, SENTENCES, collect_requests, delete_stale_failures
from pipelines.errors import Failure, LayoutError
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import decode_items, encode_item
from pipelines.inference.quarantine import reasons
from pipelines.video.listing import Video


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a/clip.mp4", "b/clip.mp4", "b/other.mkv"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "videos"


def test_sentences_of_the_command_line_go_for_every_video_and_are_kept(out: Folder, videos: Path) -> None:
    requests = collect_requests([str(videos)], None, ["the dog", "  a\n cat "], out, token_upper_bound)
    assert [one.video.path for one in requests] == [
        str(videos / name) for name in ("a/clip.mp4", "b/clip.mp4", "b/other.mkv")
    ]
    assert all([sentence.text for sentence in one.expressions] == ["the dog", "a cat"] for one in requests)
    assert out.read(SENTENCES).decode() == "the dog\na cat\n"
    assert not out.has(f"failed/{LISTED}.json")


def test_a_video_of_which_nothing_is_asked_is_left_out_and_trouble_with_the_list_is_kept(
    out: Folder, videos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression\nother,the dog\nclip,a cat\nnowhere,a cat\n")
    out.write("done/other-x.json", b"")
    patterns = [str(videos), str(tmp_path / "missing.mp4")]
    (one,) = collect_requests(patterns, str(table), (), out, token_upper_bound)
    assert one.video.name == "other.mkv"
    said = json.loads(out.read(f"failed/{LISTED}.json"))
    assert [(Path(line["video"]).name, line["stage"]) for line in said] == [
        ("missing.mp4", "list"), ("clip", "list"), ("nowhere", "list"),
    ]  # fmt: skip


def test_markers_go_to_the_video_they_are_of(out: Folder, videos: Path) -> None:
    video = Video(str(videos / "b/clip.mp4"))
    for name in (f"{video.id}-0123456789ab", f"{video.id}-ffffffffffff"):
        out.write(f"done/{name}.json", b"")
    out.write(f"done/{UNFINISHED}x-{video.id}-eeeeeeeeeeee.json", b"")
    requests = collect_requests([str(videos)], None, ["the dog"], out, token_upper_bound)
    assert [len(one.markers) for one in requests] == [0, 2, 0]
    assert list(decode_items(pa.Table.from_pylist([encode_item(requests[1])]), AnnotationRequest)) == [requests[1]]


def test_nothing_to_look_at_or_for_is_said(out: Folder, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"No video was found.*\n.*none: it does not exist"):
        collect_requests([str(tmp_path / "none")], None, ["the dog"], out, token_upper_bound)
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression\nnowhere,the dog\n")
    with pytest.raises(LayoutError, match=r"None of the 3 videos has an expression.*\n.*matches none of the videos"):
        collect_requests([str(videos)], str(table), (), out, token_upper_bound)
    table.write_text("video,expression\n")
    with pytest.raises(LayoutError, match="The list of expressions is empty"):
        collect_requests([str(videos)], str(table), (), out, token_upper_bound)
    with pytest.raises(LayoutError, match="An empty --text"):
        collect_requests([str(videos)], None, ["the dog", " "], out, token_upper_bound)


def test_notes_on_videos_that_are_no_longer_requested_go(out: Folder) -> None:
    request = AnnotationRequest(Video("/a.mp4"), ())
    names = (LISTED, request.video.id, f"{request.video.id}-overlay", Video("/b.mp4").id)
    for name in names:
        out.write(f"failed/{name}.json", b"[]")
    out.write(f"done/{UNFINISHED}x.json", b"")
    delete_stale_failures(out, [request])
    assert sorted(out.names("failed")) == sorted(f"{name}.json" for name in names[:3])
    assert out.names("done") == []


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    failures = [Failure("v", "decode", f"{at:.2f} to 9.5 s: the file is gone") for at in (0, 1.25)]
    assert reasons([*failures, Failure("v", "list", "odd")]) == [
        (2, "decode", "… to … s: the file is gone"),
        (1, "list", "odd"),
    ]
