import errno
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import DamagedFile
from pipelines.files import Folder
from pipelines.manifest import read_rows
from pipelines.prepare import shard
from pipelines.prepare.run import _written_or_problem, plan_shards
from pipelines.prepare.shard import Footer, ShardPlan, ShardWriter, read_footer
from pipelines.records import Expression, record_of
from pipelines.sources.base import Item, Reading
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.tokenizer import Tokenizer


@pytest.fixture
def source(data_kit: Path) -> RefYouTubeVOS:
    return RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train")


def write(source: RefYouTubeVOS, out: Path) -> tuple[str, Footer]:
    (plan,) = plan_shards(source, {}, 100)
    return plan.file, ShardWriter(source, Folder(str(out))).write(plan)


def test_the_file_says_of_itself_what_writing_it_said(source: RefYouTubeVOS, tmp_path: Path) -> None:
    file, footer = write(source, tmp_path)
    assert read_footer(Folder(str(tmp_path)), file) == footer
    assert footer.counts["videos"] == 7 == len(footer.row_fingerprints)


def test_row_groups_are_small_enough_to_be_fetched_alone(
    source: RefYouTubeVOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "GROUP", 500_000)
    monkeypatch.setattr(shard, "LARGEST_GROUP", 600_000)
    file, footer = write(source, tmp_path)
    sizes = {item.video: sum(map(len, source.read(item).record.frames)) for item in source.items()}
    groups = [[row.video for row in group] for group in footer.row_groups]
    assert [video for group in groups for video in group] == list(sizes)
    assert len(groups) > 2
    for group in groups:
        assert len(group) == 1 or sum(sizes[video] for video in group) <= 600_000
    folder = Folder(str(tmp_path))
    for number, group in enumerate(groups):
        assert [row["video"] for row in read_rows(folder, file, number, ["video"])] == group


def test_frames_are_not_compressed_twice_and_videos_can_be_looked_up(source: RefYouTubeVOS, tmp_path: Path) -> None:
    file, _ = write(source, tmp_path)
    group = pq.ParquetFile(tmp_path / file).metadata.row_group(0)
    for column in (group.column(index) for index in range(group.num_columns)):
        pictures = column.path_in_schema.startswith("frames.")
        assert column.compression == ("UNCOMPRESSED" if pictures else "ZSTD")
        assert (column.statistics is not None) == (column.path_in_schema == "video")
    assert group.column(2).statistics.min == source.items()[0].video


def test_half_a_letter_puts_only_its_video_into_quarantine(source: RefYouTubeVOS, tmp_path: Path) -> None:
    """JSON may spell half a surrogate pair, which neither Arrow nor a file name can hold."""

    @dataclass(frozen=True)
    class Halved(RefYouTubeVOS):
        def read(self, item: Item) -> Reading:
            reading = RefYouTubeVOS.read(self, item)
            if item.video != source.items()[1].video:
                return reading
            track = reading.record.objects[0]
            return Reading(replace(reading.record, expressions=(Expression("0", "a \ud800", (track.id,)),)))

    _, footer = write(Halved(source.root, "train"), tmp_path)
    (bad,) = footer.quarantined
    assert bad["video"] == source.items()[1].video
    assert r"'a \ud800', which is no Unicode text" in bad["reason"]
    assert footer.counts["videos"] == 6


def test_a_shard_of_quarantined_videos_only_is_an_empty_file(source: RefYouTubeVOS, tmp_path: Path) -> None:
    nowhere = replace(source, root=Folder(str(tmp_path)))
    (plan,) = plan_shards(source, {}, 100)
    folder = Folder(str(tmp_path / "out"))
    footer = ShardWriter(nowhere, folder).write(plan)
    assert (footer.row_groups, len(footer.quarantined)) == ((), 7)
    assert pq.read_table(tmp_path / "out" / plan.file).num_rows == 0
    assert read_footer(folder, plan.file) == footer


@dataclass(frozen=True)
class Flaky(RefYouTubeVOS):
    """Storage that fails at the first readings, as a network does."""

    failures: int = 0
    tried: tuple[list[str], ...] = ([],)

    def read(self, item: Item) -> Reading:
        self.tried[0].append(item.video)
        if len(self.tried[0]) <= self.failures:
            raise ConnectionResetError("the bucket went away")
        return RefYouTubeVOS.read(self, item)


@dataclass(frozen=True, slots=True)
class Wordy(RefYouTubeVOS):
    """A source of which every video has a sentence of 400 short words too."""

    def read(self, item: Item) -> Reading:
        reading = RefYouTubeVOS.read(self, item)
        first = reading.record.expressions[0]
        record = replace(reading.record, expressions=(*reading.record.expressions, replace(first, id="x", text=LONG)))
        return Reading(record, reading.dropped)


LONG = "the dog " * 200


def test_a_sentence_of_too_many_tokens_is_left_out_by_name(source: RefYouTubeVOS, tmp_path: Path) -> None:
    expected = write(source, tmp_path / "a")[1]
    wordy = Wordy(source.root, "train")
    _, footer = write(wordy, tmp_path / "b")
    assert footer.counts["expressions"] == expected.counts["expressions"]
    reason = "sentence of more than 512 tokens"
    assert footer.dropped == {**expected.dropped, reason: 7}
    (first, *_) = [one for one in footer.left_out if one.reason == reason]
    assert first.video == source.items()[0].video
    assert first.what.startswith("expression x, up to 1601 tokens where the text encoder takes 512: the dog the dog")
    few = Tokenizer.train(["the dog " * 9], vocabulary=300).to_json()
    (plan,) = plan_shards(wordy, {}, 100)
    counted = ShardWriter(wordy, Folder(str(tmp_path / "c")).make(), tokenizer=few).write(plan)
    assert counted.counts["expressions"] == expected.counts["expressions"] + 7, "the tokenizer makes 402 tokens of it"


def test_storage_that_fails_once_is_asked_again(
    source: RefYouTubeVOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shard, "PAUSE", 0.0)
    with caplog.at_level(logging.WARNING):
        _, footer = write(Flaky(source.root, "train", failures=1, tried=([],)), tmp_path)
    assert footer.counts["videos"] == 7
    assert "attempt 1 failed (the bucket went away)" in caplog.text


def test_storage_that_keeps_failing_ends_the_run_and_names_the_video(
    source: RefYouTubeVOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "PAUSE", 0.0)
    flaky = Flaky(source.root, "train", failures=99, tried=([],))
    with pytest.raises(ConnectionResetError) as caught:
        write(flaky, tmp_path)
    assert len(flaky.tried[0]) == shard.ATTEMPTS
    assert source.items()[0].video in caught.value.__notes__[0]
    assert not list(tmp_path.iterdir())


def test_rows_are_read_back_as_records(source: RefYouTubeVOS, tmp_path: Path) -> None:
    file, _ = write(source, tmp_path)
    first = record_of(read_rows(Folder(str(tmp_path)), file, 0)[0])
    assert first == source.read(source.items()[0]).record


def test_a_full_disk_ends_at_once_and_is_told_as_a_value(
    source: RefYouTubeVOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def full(_: ShardWriter, plan: ShardPlan) -> Footer:
        tried.append(plan.file)
        raise OSError(errno.ENOSPC, "No space left on device", plan.file)

    monkeypatch.setattr(ShardWriter, "_write", full)
    (plan,) = plan_shards(source, {}, 100)
    problem = _written_or_problem(ShardWriter(source, Folder(str(tmp_path))), plan)["problem"]
    assert tried == [plan.file]
    assert problem == f"OSError: [Errno {errno.ENOSPC}] No space left on device: {plan.file!r}"


def test_numbers_beyond_the_columns_put_only_their_video_into_quarantine(source: RefYouTubeVOS, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Huge(RefYouTubeVOS):
        def read(self, item: Item) -> Reading:
            reading = RefYouTubeVOS.read(self, item)
            if item.video != source.items()[1].video:
                return reading
            track = replace(reading.record.objects[0], id=2**70)
            return Reading(replace(reading.record, objects=(track,), expressions=()))

    _, footer = write(Huge(source.root, "train"), tmp_path)
    (bad,) = footer.quarantined
    assert bad["video"] == source.items()[1].video
    assert "hold impossible values" in bad["reason"]
    assert footer.counts["videos"] == 6


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flipped_byte_in_a_page_or_footer_is_said_to_be_damage(
    source: RefYouTubeVOS, tmp_path: Path, place: float
) -> None:
    file, _ = write(source, tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[int(len(data) * place)] ^= 0x10
    (tmp_path / file).write_bytes(data)
    folder = Folder(str(tmp_path))

    def read() -> None:
        for number in range(len(read_footer(folder, file).row_groups)):
            read_rows(folder, file, number)

    with pytest.raises(DamagedFile, match=rf"{file} is damaged .*: remove it and run the job that wrote it again"):
        read()
