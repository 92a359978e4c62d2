"""Names in a folder of annotations, and what is kept there."""

import json
from pathlib import Path

from pipelines.annotate.layout import (
    GROUP_FILE,
    expression_group,
    read_group,
    remove_file,
    results_of,
    video_of,
    write_group,
)
from pipelines.errors import Failure
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.quarantine import write_failures
from pipelines.records import Expression
from pipelines.video.listing import Video

SENTENCES = (Expression("1", "the dog"), Expression("2", "the cat"))


def test_a_group_is_named_by_what_made_it_and_not_by_the_order_of_its_sentences() -> None:
    group = expression_group("v-0123456789", "file", "settings", SENTENCES)
    assert expression_group("v-0123456789", "file", "settings", SENTENCES[::-1]) == group
    others = [
        expression_group("v-0123456789", "another", "settings", SENTENCES),
        expression_group("v-0123456789", "file", "others", SENTENCES),
        expression_group("v-0123456789", "file", "settings", SENTENCES[:1]),
        expression_group("v-0123456789", "file", "settings", (SENTENCES[0], Expression("2", "a cat"))),
    ]
    assert len({group.name, *(other.name for other in others)}) == 5


def test_a_group_is_kept_beside_its_windows(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    group = expression_group("v-0123456789", "file", "settings", SENTENCES)
    assert read_group(out, group.folder) is None
    write_group(out, group)
    assert read_group(out, group.folder) == group
    assert json.loads(out.read(f"{group.folder}/{GROUP_FILE}")) == {
        "video": "v-0123456789", "name": group.name, "sentences": [["1", "the dog"], ["2", "the cat"]],
    }  # fmt: skip


def test_the_names_of_results_tell_their_video() -> None:
    video = Video("/a b/Ünder-the-sea.mp4").id
    group = expression_group(video, "file", "settings", SENTENCES)
    assert video_of(group.result.rpartition("/")[2]) == video
    assert video_of(group.marker.rpartition("/")[2]) == video


def test_results_are_found_by_video_without_those_being_written(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    for name in ("a-1-x.parquet", "a-1-y.parquet", "b-2-x.parquet", f"{UNFINISHED}c-3-x.parquet"):
        out.write(f"predictions/{name}", b"")
    assert results_of(out) == {"a-1": ["a-1-x.parquet", "a-1-y.parquet"], "b-2": ["b-2-x.parquet"]}


def test_failures_are_kept_until_there_are_none(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    write_failures(out, "v", [Failure("/v.mp4", "decode", "it is a poem")])
    assert json.loads(out.read("failed/v.json")) == [{"video": "/v.mp4", "stage": "decode", "reason": "it is a poem"}]
    write_failures(out, "v", [])
    write_failures(out, "v", [])
    assert not out.has("failed/v.json")


def test_only_what_is_there_is_removed(tmp_path: Path) -> None:
    out = Folder(str(tmp_path / 'odd "name" 100%'))
    out.write("windows/v/b/1.parquet", b"")
    out.write("windows/v/c/1.parquet", b"")
    for _ in range(2):
        out.remove_folder("windows/v/b")
        remove_file(out, "windows/v/c/1.parquet")
    assert out.names("windows/v") == ["c"]
    assert out.names("windows/v/c") == []
