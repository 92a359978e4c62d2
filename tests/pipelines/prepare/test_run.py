import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from patience import PATIENCE
from pipelines.errors import LayoutError
from pipelines.files import UNFINISHED, Folder
from pipelines.manifest import DROPPED, MANIFEST, QUARANTINE, Manifest, read_manifest
from pipelines.prepare.run import finish, plan_shards, shards_to_do, write_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Item, Source
from pipelines.sources.ytvos import RefYouTubeVOS
from python_path import PYTHONPATH

SCRIPT = Path(__file__).with_name("slow_prepare.py")


def prepared(source: Source, out: Path, rows_per_shard: int = 1) -> Manifest:
    """Everything in this process, without Ray."""
    folder = Folder(str(out)).make()
    plans = plan_shards(source, {}, rows_per_shard)
    for plan in shards_to_do(plans, folder):
        ShardWriter(source, folder).write(plan)
    return finish(plans, source, folder, {})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(data_kit: Path) -> RefYouTubeVOS:
    return RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train")


def test_shards_hold_neighbours_in_the_order_of_their_names(source: RefYouTubeVOS, tmp_path: Path) -> None:
    manifest = prepared(source, tmp_path, rows_per_shard=3)
    names = [[row.video for group in shard.row_groups for row in group] for shard in manifest.shards]
    assert [len(shard) for shard in names] == [3, 3, 1]
    together = [name for shard in names for name in shard]
    assert together == [item.video for item in source.items()] == sorted(together)
    assert manifest.shards[1].file == "ref-youtube-vos-train-00001-of-00003.parquet"
    for shard, listed in zip(manifest.shards, names, strict=True):
        assert pq.read_table(tmp_path / shard.file, columns=["video"])["video"].to_pylist() == listed
        assert (tmp_path / shard.file).stat().st_size == shard.bytes


def test_the_source_fingerprint_depends_on_the_data_and_not_on_the_shards(
    source: RefYouTubeVOS, tmp_path: Path
) -> None:
    whole, cut = prepared(source, tmp_path / "a", 100), prepared(source, tmp_path / "b", 2)
    assert whole.source_fingerprint == cut.source_fingerprint
    other = prepared(replace(source, split="valid"), tmp_path / "c")
    assert other.source_fingerprint != whole.source_fingerprint


def test_what_no_item_speaks_of_is_counted_beside_what_readings_drop(data_kit: Path, tmp_path: Path) -> None:
    source = A2DSentences(Folder(str(data_kit / "a2d")), "train")
    (left_out,) = source.left_out()
    assert left_out.reason == "video in a2d_missed_videos.txt"
    manifest = prepared(source, tmp_path)
    assert manifest.dropped == {"instance is no number": 1, "video in a2d_missed_videos.txt": 1}
    named = [json.loads(line) for line in (tmp_path / DROPPED).read_text().splitlines()]
    assert [one["reason"] for one in named] == ["video in a2d_missed_videos.txt", "instance is no number"]
    assert (named[0]["video"], named[0]["what"]) == (left_out.video, left_out.what)
    assert all(one["video"] and one["what"] for one in named)


@pytest.mark.usefixtures("ray_local")
def test_any_number_of_workers_writes_the_same_bytes(source: RefYouTubeVOS, tmp_path: Path) -> None:
    prepared(source, tmp_path / "none")
    for workers in (1, 3):
        folder = Folder(str(tmp_path / str(workers))).make()
        plans = plan_shards(source, {}, 1)
        sizes = list(write_shards(plans, ShardWriter(source, folder), workers))
        manifest = finish(plans, source, folder, {})
        assert sum(sizes) == manifest.counts["frame_bytes"]
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "none")


@pytest.mark.usefixtures("ray_local")
def test_an_unexpected_error_in_a_worker_names_the_video(source: RefYouTubeVOS, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(source.root.path(), raw)
    broken = RefYouTubeVOS(Folder(str(raw)), "train")
    plans = plan_shards(broken, {}, 100)
    video = source.items()[2].video
    shutil.rmtree(raw / "train/Annotations" / video)
    (raw / "train/Annotations").joinpath(video).symlink_to(video)  # a loop: neither missing nor forbidden
    writer = ShardWriter(broken, Folder(str(tmp_path / "out")).make())
    with pytest.raises(Exception, match=f"while preparing '{video}' of ref-youtube-vos"):
        list(write_shards(plans, writer))
    assert not any((tmp_path / "out").iterdir())


def test_what_is_there_is_not_done_again(source: RefYouTubeVOS, tmp_path: Path) -> None:
    prepared(source, tmp_path)
    before = contents(tmp_path)
    folder, plans = Folder(str(tmp_path)), plan_shards(source, {}, 1)
    assert shards_to_do(plans, folder) == []
    assert (tmp_path / MANIFEST).exists()
    (tmp_path / plans[3].file).unlink()
    (tmp_path / f"{UNFINISHED}123-{plans[3].file}").write_bytes(b"half")
    assert shards_to_do(plans, folder) == [plans[3]]
    assert not (tmp_path / MANIFEST).exists(), "an unfinished folder should have no manifest"
    prepared(source, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("settings", [{"short_side": 100}, {"split": "valid"}])
def test_shards_of_other_settings_are_not_taken_for_done(
    source: RefYouTubeVOS, tmp_path: Path, settings: dict[str, object]
) -> None:
    prepared(source, tmp_path)
    with pytest.raises(ValueError, match="was made from other raw data or settings"):
        shards_to_do(plan_shards(source, settings, 1), Folder(str(tmp_path)))


def test_shards_of_another_number_are_refused(source: RefYouTubeVOS, tmp_path: Path) -> None:
    prepared(source, tmp_path)
    with pytest.raises(ValueError, match=r"00000-of-00007.parquet is none of the 4 shards"):
        shards_to_do(plan_shards(source, {}, 2), Folder(str(tmp_path)))


def test_a_damaged_shard_is_told(source: RefYouTubeVOS, tmp_path: Path) -> None:
    manifest = prepared(source, tmp_path)
    (tmp_path / manifest.shards[0].file).write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"00000-of-00007.parquet is damaged .*: remove it and run"):
        shards_to_do(plan_shards(source, {}, 1), Folder(str(tmp_path)))


def test_a_mended_video_leaves_quarantine_when_asked(source: RefYouTubeVOS, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(source.root.path(), raw)
    ours = RefYouTubeVOS(Folder(str(raw)), "train")
    video = ours.items()[0].video
    image = sorted((raw / "train/JPEGImages" / video).iterdir())[0]
    whole = image.read_bytes()
    image.write_bytes(whole[:500])
    manifest = prepared(ours, out)
    assert (manifest.quarantined, manifest.counts["videos"]) == (1, 6)
    assert video in (out / QUARANTINE).read_text()
    image.write_bytes(whole)
    folder, plans = Folder(str(out)), plan_shards(ours, {}, 1)
    assert shards_to_do(plans, folder) == []
    (again,) = shards_to_do(plans, folder, retry_quarantined=True)
    ShardWriter(ours, folder).write(again)
    manifest = finish(plans, ours, folder, {})
    assert (manifest.quarantined, manifest.counts["videos"]) == (0, 7)
    assert read_manifest(folder) == manifest
    assert (out / QUARANTINE).read_text() == ""


def test_an_empty_split_is_an_error(source: RefYouTubeVOS) -> None:
    @dataclass(frozen=True)
    class Empty(RefYouTubeVOS):
        def items(self) -> list[Item]:
            return []

    with pytest.raises(LayoutError, match="lists no video"):
        plan_shards(Empty(source.root, "train"), {}, 1)


def start(mode: str, source: RefYouTubeVOS, tmp_path: Path) -> subprocess.Popen[bytes]:
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    words = [sys.executable, str(SCRIPT), mode, source.root.path(), str(tmp_path / "out"), str(marks)]
    log = (tmp_path / "log").open("ab")
    with log:
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
        return subprocess.Popen(words, start_new_session=True, stdout=log, stderr=log, env=environment)


def wait_for(
    found: Callable[[], bool], process: subprocess.Popen[bytes], tmp_path: Path, seconds: float = PATIENCE
) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, (tmp_path / "log").read_text(errors="replace")[-3000:]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def expect_success(process: subprocess.Popen[bytes], tmp_path: Path, seconds: float = PATIENCE) -> None:
    try:
        assert process.wait(seconds) == 0, (tmp_path / "log").read_text(errors="replace")[-3000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(source: RefYouTubeVOS, tmp_path: Path) -> None:
    prepared(source, tmp_path / "undisturbed")
    process = start("local", source, tmp_path)
    marks = tmp_path / "marks"
    wait_for(lambda: len(list(marks.iterdir())) > 2, process, tmp_path)
    done = {path.name for path in (tmp_path / "out").glob("*.parquet")}
    video, _, pid = max(marks.iterdir(), key=lambda path: path.stat().st_mtime_ns).name.rpartition("-")
    os.kill(int(pid), signal.SIGKILL)
    expect_success(process, tmp_path)
    assert len(done) < 7, "the worker was to be killed before the end"
    assert len(list(marks.glob(f"{video}-*"))) == 2, "the task of the killed worker was to be run again"
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_driver_leaves_whole_shards_and_the_next_run_does_the_rest(
    source: RefYouTubeVOS, tmp_path: Path
) -> None:
    prepared(source, tmp_path / "undisturbed")
    expected, out = contents(tmp_path / "undisturbed"), tmp_path / "out"
    process = start("local", source, tmp_path)
    wait_for(lambda: len(list(out.glob("ref-*.parquet"))) > 1, process, tmp_path)
    process.kill()
    process.wait(10)
    left = {path.name: path.stat().st_mtime_ns for path in out.glob("ref-*.parquet")}
    assert 1 < len(left) < 7
    assert all((out / name).read_bytes() == expected[name] for name in left)
    assert not (out / MANIFEST).exists()
    expect_success(start("local", source, tmp_path), tmp_path)
    assert contents(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in left} == left, "whole shards were written again"


@pytest.mark.slow
def test_a_killed_node_changes_nothing(source: RefYouTubeVOS, tmp_path: Path) -> None:
    prepared(source, tmp_path / "undisturbed")
    expect_success(start("cluster", source, tmp_path), tmp_path)
    video = (tmp_path / "killed").read_text().rpartition("-")[0]
    assert len(list((tmp_path / "marks").glob(f"{video}-*"))) == 2, "the task of the killed node was to be run again"
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
