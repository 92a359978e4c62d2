"""Names in a folder of annotations, and what is kept there."""

import json
from pathlib import Path

from pipelines.annotate.layout import (
    GROUP_FILE,
    SENTENCES_EACH,
    expression_groups,
    read_group,
    remove_windows,
    stretch_files,
    stretches_of,
    write_group,
)
from pipelines.errors import Failure
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.quarantine import write_failures, write_quarantine
from pipelines.records import Expression

SENTENCES = (Expression("1", "the dog"), Expression("2", "the cat"))


def test_a_group_is_named_by_what_made_it_and_not_by_the_order_of_its_sentences() -> None:
    (group,) = expression_groups("v-0123456789", "file", "settings", SENTENCES)
    assert expression_groups("v-0123456789", "file", "settings", SENTENCES[::-1]) == (group,)
    others = [
        expression_groups("v-0123456789", "another", "settings", SENTENCES),
        expression_groups("v-0123456789", "file", "others", SENTENCES),
        expression_groups("v-0123456789", "file", "settings", SENTENCES[:1]),
        expression_groups("v-0123456789", "file", "settings", (SENTENCES[0], Expression("2", "a cat"))),
    ]
    assert len({group.name, *(other.name for (other,) in others)}) == 5


def test_many_sentences_are_several_groups() -> None:
    many = [Expression(f"{number:05d}", "the dog") for number in range(2 * SENTENCES_EACH + 1)]
    groups = expression_groups("v-0123456789", "file", "settings", many[::-1])
    assert [len(group.expressions) for group in groups] == [SENTENCES_EACH, SENTENCES_EACH, 1]
    assert [one for group in groups for one in group.expressions] == many


def test_a_group_is_kept_beside_its_windows(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    (group,) = expression_groups("v-0123456789", "file", "settings", SENTENCES)
    assert read_group(out, group.folder) is None
    write_group(out, group)
    assert read_group(out, group.folder) == group
    assert json.loads(out.read(f"{group.folder}/{GROUP_FILE}")) == {
        "video": "v-0123456789", "name": group.name, "sentences": [["1", "the dog"], ["2", "the cat"]],
    }  # fmt: skip


def test_a_stretch_that_lacks_windows_is_read_until_there_is_a_whole_one(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    (group,) = expression_groups("v-0123456789", "file", "settings", SENTENCES)
    write_group(out, group)
    for number, whole in ((2, True), (1, False), (10, True), (10, False)):
        out.write(group.stretch(number, whole), b"")
    out.write(f"{group.folder}/{UNFINISHED}x-000003.parquet", b"")
    assert stretches_of(out, group) == {2, 10}
    assert stretch_files(out, group) == ["000001-partial.parquet", "000002.parquet", "000010.parquet"]
    remove_windows(out, group)
    remove_windows(out, group)
    assert stretch_files(out, group) == []
    assert not out.has("windows/v-0123456789")


def test_failures_are_kept_until_there_are_none(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    poem, gone = Failure("/v.mp4", "decode", "it is a poem"), Failure("/a.mp4", "read", "it is gone")
    write_failures(out, "v", [poem])
    assert json.loads(out.read("failed/v.json")) == [{"video": "/v.mp4", "stage": "decode", "reason": "it is a poem"}]
    assert write_quarantine(out, [gone, poem]) == [gone, poem]
    assert len(out.read("quarantine.jsonl").splitlines()) == 2
    write_failures(out, "v", [])
    write_failures(out, "v", [])
    assert not out.has("failed/v.json")
