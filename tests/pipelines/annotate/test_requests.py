"""The requests of a run: which videos, with which expressions."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.annotate.plan import AnnotationRequest
from pipelines.annotate.requests import LISTED, SENTENCES, Requests, collect_requests, delete_stale_failures
from pipelines.errors import Failure, LayoutError
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import decode_items, encode_item
from pipelines.inference.quarantine import reasons
from pipelines.ledger import Entry, Ledger
from pipelines.sources.sentences import token_upper_bound
from pipelines.video.listing import Video, list_videos


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


def collect(
    out: Folder, patterns: list[Path], table: Path | None = None, *texts: str, ledger: Ledger | None = None, **more: Any
) -> Requests:
    paths = [str(path) for path in patterns]
    known = ledger or Ledger("settings")
    return collect_requests(paths, str(table) if table else None, texts, out, known, token_upper_bound, **more)


def answered(*videos: Video) -> Ledger:
    """A ledger in which the dog of these videos is answered."""
    ledger = Ledger("settings")
    for video in videos:
        ledger.add(
            f"{video.id}.parquet", 1, [Entry(video.id, video.path, video.stamp, "file", (("1", "the dog"),), groups=1)]
        )
    return ledger


def test_sentences_of_the_command_line_go_for_every_video_and_are_kept(out: Folder, videos: Path) -> None:
    requests = collect(out, [videos], None, "the dog", "  a\n cat ")
    assert [one.video.path for one in requests.left] == [
        str(videos / name) for name in ("a/clip.mp4", "b/clip.mp4", "b/other.mkv")
    ]
    assert all([sentence.text for sentence in one.expressions] == ["the dog", "a cat"] for one in requests.left)
    assert requests.videos == {one.video.id for one in requests.left}
    assert out.read(SENTENCES).decode() == "the dog\na cat\n"
    assert not out.has(f"failed/{LISTED}.json")


def test_a_video_of_which_nothing_is_asked_is_left_out_and_trouble_with_the_list_is_kept(
    out: Folder, videos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression\nother,the dog\nclip,a cat\nnowhere,a cat\n")
    (one,) = collect(out, [videos, tmp_path / "missing.mp4"], table).left
    assert one.video.name == "other.mkv"
    said = json.loads(out.read(f"failed/{LISTED}.json"))
    assert [(Path(line["video"]).name, line["stage"]) for line in said] == [
        ("missing.mp4", "list"), ("clip", "list"), ("nowhere", "list"),
    ]  # fmt: skip


def test_a_video_that_has_not_changed_is_not_looked_at_again(out: Folder, videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression,id\na/clip,the dog,1\nb/clip,the dog,1\nother,the dog,1\n")
    listed = list_videos(str(videos)).videos
    ledger = answered(*listed)
    assert collect(out, [videos], table, ledger=ledger) == Requests(
        (), {one.path: 1 for one in listed}, frozenset(one.id for one in listed), kept=3
    )

    os.utime(videos / "b/clip.mp4", ns=(0, 0))
    requests = collect(out, [videos], table, ledger=ledger)
    (one,) = requests.left
    assert (one.video.path, one.answered, requests.kept) == (str(videos / "b/clip.mp4"), {"file": ("1",)}, 2)
    assert list(decode_items(pa.Table.from_pylist([encode_item(one)]), AnnotationRequest)) == [one]
    assert len(collect(out, [videos], table, ledger=ledger, verify=True).left) == 3

    table.write_text("video,expression,id\na/clip,the dog,1\na/clip,a cat,2\n")
    (one,) = collect(out, [videos], table, ledger=ledger).left
    assert (len(one.expressions), one.answered) == (2, {"file": ("1",)})


def test_another_sentence_under_the_same_id_is_said_and_not_asked(out: Folder, videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression,id\nother,the bird,1\n")
    ledger = answered(*list_videos(str(videos / "b/other.mkv")).videos)
    requests = collect(out, [videos], table, ledger=ledger)
    assert (requests.left, requests.kept) == ((), 0)
    (said,) = json.loads(out.read(f"failed/{LISTED}.json"))
    assert "'1' was 'the dog' and is now 'the bird'" in said["reason"]


def test_only_what_is_to_be_given_again_is_asked(out: Folder, videos: Path) -> None:
    one = next(video for video in list_videos(str(videos)).videos if video.name == "other.mkv")
    _, cat = collect(out, [videos], None, "the dog", "a cat").left[0].expressions
    requests = collect(out, [videos], None, "the dog", "a cat", only={(one.id, cat.id), ("gone", "0")})
    assert [(left.video, [each.text for each in left.expressions]) for left in requests.left] == [(one, ["a cat"])]
    assert requests.videos == {one.id}
    with pytest.raises(LayoutError, match="None of the 3 videos has an expression with such a verdict"):
        collect(out, [videos], None, "the dog", only={("gone", "0")})


def test_what_failed_in_part_is_tried_again(out: Folder, videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression,id\nother,the dog,1\n")
    ledger = answered(*list_videos(str(videos / "b/other.mkv")).videos)
    for video, (entry,) in ledger.by_video.items():
        ledger.by_video[video] = [replace(entry, failures=(Failure(entry.path, "decode", "it took too long"),))]
    (one,) = collect(out, [videos], table, ledger=ledger).left
    assert one.answered == {}


def test_nothing_to_look_at_or_for_is_said(out: Folder, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"No video was found.*\n.*none: it does not exist"):
        collect(out, [tmp_path / "none"], None, "the dog")
    table = tmp_path / "expressions.csv"
    table.write_text("video,expression\nnowhere,the dog\n")
    with pytest.raises(LayoutError, match=r"None of the 3 videos has an expression.*\n.*matches none of the videos"):
        collect(out, [videos], table)
    table.write_text("video,expression\n")
    with pytest.raises(LayoutError, match="The list of expressions is empty"):
        collect(out, [videos], table)
    with pytest.raises(LayoutError, match="An empty --text"):
        collect(out, [videos], None, "the dog", " ")


def test_what_folders_hold_besides_is_told(out: Folder, videos: Path) -> None:
    (videos / "notes.json").touch()
    assert collect(out, [videos], None, "the dog").notes == ("1 file is no videos or images: 1 .json",)


def test_notes_on_videos_that_are_no_longer_requested_go(out: Folder) -> None:
    video = Video("/a.mp4")
    names = (LISTED, f"{video.id}-overlay", f"{Video('/b.mp4').id}-overlay")
    for name in names:
        out.write(f"failed/{name}.json", b"[]")
    out.write(f"written/{UNFINISHED}x.json", b"")
    delete_stale_failures(out, {video.id})
    assert sorted(out.names("failed")) == sorted(f"{name}.json" for name in names[:2])
    assert out.names("written") == []


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    failures = [Failure("v", "decode", f"{at:.2f} to 9.5 s: the file is gone") for at in (0, 1.25)]
    assert reasons([*failures, Failure("v", "list", "odd")]) == [
        (2, "decode", "… to … s: the file is gone"),
        (1, "list", "odd"),
    ]
