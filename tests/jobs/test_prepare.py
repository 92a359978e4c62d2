"""Raw folders of the data kit through the job, as people run it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.common.cli import run
from jobs.impl import prepare as impl
from jobs.impl.prepare import SHEET
from jobs.prepare import PrepareConfig, main
from pack import ROOT
from patience import PATIENCE
from pipelines.config_io import CONFIG, read_config
from pipelines.errors import Exit, JobError, LayoutError
from pipelines.files import Folder
from pipelines.images import checked_size
from pipelines.manifest import QUARANTINE, WITHHELD, Manifest, read_manifest
from pipelines.prepare.row_info import row_info
from pipelines.records import Record, records_of, table_of
from pipelines.sources.catalog import entry_of
from tool_files import write_frames, write_json
from training_runs import prepared

LAYOUTS = [
    ("ref-youtube-vos", "train", "refytvos"),
    ("ref-youtube-vos", "valid", "refytvos"),
    ("ref-youtube-vos", "test", "refytvos"),
    ("ref-davis17", "train", "refdavis"),
    ("ref-davis17", "valid", "refdavis"),
    ("ref-davis17", "valid", "refdavis_raw"),
    *(("refcoco", split, "refcoco") for split in ("train", "val", "testA", "testB")),
    ("refcoco+", "train", "refcoco"),
    ("refcocog", "train", "refcoco"),
    ("refcocog", "val", "refcoco"),
    ("a2d-sentences", "train", "a2d"),
    ("a2d-sentences", "test", "a2d"),
    ("jhmdb-sentences", "test", "jhmdb"),
]


def records_in(out: Path, manifest: Manifest) -> list[Record]:
    return [record for shard in manifest.shards for record in records_of(pq.read_table(out / shard.file))]


def ytvos(data_kit: Path, tmp_path: Path) -> PrepareConfig:
    raw, out = str(data_kit / "refytvos"), str(tmp_path / "out")
    return PrepareConfig("ref-youtube-vos", "train", out, raw, rows_per_shard=3)


def damaged(data_kit: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the training videos with five broken ones; what quarantine should say of each."""
    raw = tmp_path / "raw"
    for part in ("train", "meta_expressions/train"):
        shutil.copytree(data_kit / "refytvos" / part, raw / part)
    meta = raw / "meta_expressions/train/meta_expressions.json"
    content = json.loads(meta.read_text())
    cut, missing, other, empty, keyless, *_ = sorted(content["videos"])
    image = sorted((raw / "train/JPEGImages" / cut).iterdir())[1]
    image.write_bytes(image.read_bytes()[:-200])
    sorted((raw / "train/JPEGImages" / missing).iterdir())[0].unlink()
    Image.new("P", (5, 5)).save(sorted((raw / "train/Annotations" / other).iterdir())[2])
    content["videos"][empty]["frames"] = []
    del content["videos"][keyless]["expressions"]["0"]["exp"]
    meta.write_text(json.dumps(content))
    said = {cut: "cut short", missing: "does not exist", other: "5x5", empty: "frame", keyless: "exp"}
    return raw, said


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("dataset", "split", "folder"), LAYOUTS)
def test_parquet_holds_exactly_what_the_source_reads(
    data_kit: Path, tmp_path: Path, dataset: str, split: str, folder: str
) -> None:
    config = PrepareConfig(dataset, split, str(tmp_path), str(data_kit / folder))
    source = entry_of(dataset).open(Folder(config.raw), split)
    readings = [source.read(item) for item in source.items()]
    assert main(config) == Exit.CLEAN
    manifest = read_manifest(Folder(config.out))
    assert records_in(tmp_path, manifest) == records_of(table_of([reading.record for reading in readings]))
    rows = [row for shard in manifest.shards for group in shard.row_groups for row in group]
    assert rows == [row_info(reading.record) for reading in readings]
    assert manifest.counts == {
        "videos": len(readings),
        "frames": sum(len(reading.record.frames) for reading in readings),
        "objects": sum(len(reading.record.objects) for reading in readings),
        "expressions": sum(len(reading.record.expressions) for reading in readings),
        "frame_bytes": sum(len(frame) for reading in readings for frame in reading.record.frames),
        "bytes": sum(path.stat().st_size for path in tmp_path.glob("*.parquet")),
    }
    assert sum(manifest.dropped.values()) >= sum(len(reading.dropped) for reading in readings)
    assert not any(reading.record.source.startswith("/") for reading in readings), "rows depend on the mount"


@pytest.mark.usefixtures("ray_local")
def test_ones_own_video_file_and_frames_prepare_together(data_kit: Path, tmp_path: Path) -> None:
    raw, kit, video = tmp_path / "raw", data_kit / "refytvos/train", "31f1e819d1"
    shutil.copytree(kit / "JPEGImages" / video, raw / "JPEGImages/cart")
    shutil.copytree(kit / "Annotations" / video, raw / "Annotations/cart")
    (raw / "videos").mkdir()
    shutil.copy(data_kit / "a2d/Release/CLIPS320/davisDog001.mp4", raw / "videos/dog.mp4")
    (raw / "Annotations/dog").mkdir()
    Image.new("L", (568, 320), 1).save(raw / "Annotations/dog/00002.png")
    (raw / "expressions.csv").write_text("video,object_id,text\ncart,1,the cart\ndog,1,everything\n")
    found = {}
    for quality in (95, 30):
        out = tmp_path / str(quality)
        assert main(PrepareConfig("own", "train", str(out), str(raw), quality=quality)) == Exit.CLEAN
        cart, found[quality] = records_in(out, read_manifest(Folder(str(out))))
        assert cart.frames[0] == (kit / "JPEGImages" / video / f"{cart.frame_names[0]}.jpg").read_bytes()
    assert len(found[30].frames[0]) < len(found[95].frames[0]), "frames of a video file have the quality asked for"


@pytest.mark.usefixtures("ray_local")
def test_frames_are_the_files_byte_for_byte(data_kit: Path, tmp_path: Path) -> None:
    config = ytvos(data_kit, tmp_path)
    main(config)
    for record in records_in(Path(config.out), read_manifest(Folder(config.out))):
        folder = data_kit / "refytvos/train/JPEGImages" / record.video
        assert [folder.joinpath(f"{name}.jpg").read_bytes() for name in record.frame_names] == list(record.frames)


@pytest.mark.usefixtures("ray_local")
def test_expressions_without_truth_are_not_for_training(data_kit: Path, tmp_path: Path) -> None:
    main(replace(ytvos(data_kit, tmp_path), split="valid"))
    (shard,) = read_manifest(Folder(str(tmp_path / "out"))).shards
    for group in shard.row_groups:
        for row in group:
            assert row.untrainable == dict.fromkeys(range(row.expressions), WITHHELD)


@pytest.mark.usefixtures("ray_local")
def test_resized_frames_keep_the_size_of_the_source_in_the_record(data_kit: Path, tmp_path: Path) -> None:
    config = replace(ytvos(data_kit, tmp_path), short_side=120)
    main(config)
    for record in records_in(Path(config.out), read_manifest(Folder(config.out))):
        assert min(record.width, record.height) == 120 < min(record.original_width, record.original_height)
        assert {checked_size(frame) for frame in record.frames} == {(record.width, record.height)}


@pytest.mark.usefixtures("ray_local")
def test_a_second_run_writes_no_shard(data_kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ytvos(data_kit, tmp_path)
    main(config)
    capsys.readouterr()
    before = {path.name: path.stat().st_mtime_ns for path in Path(config.out).glob("*.parquet")}
    whole = Path(config.out, "manifest.json").read_bytes()
    assert main(config) == Exit.CLEAN
    assert "all 3 shards were already written" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in Path(config.out).glob("*.parquet")} == before
    assert Path(config.out, "manifest.json").read_bytes() == whole


@pytest.mark.usefixtures("ray_local")
def test_other_settings_into_the_same_folder_are_an_error_that_names_them(data_kit: Path, tmp_path: Path) -> None:
    config = ytvos(data_kit, tmp_path)
    main(config)
    with pytest.raises(JobError, match=r"short_side was None and is now 100; quality was 95 and is now 50"):
        main(replace(config, short_side=100, quality=50))
    shutil.copytree(data_kit / "refytvos", tmp_path / "elsewhere")
    with pytest.raises(JobError, match=r"raw was '.*refytvos' and is now"):
        main(replace(config, raw=str(tmp_path / "elsewhere")))


@pytest.mark.usefixtures("ray_local")
def test_shards_are_the_same_wherever_the_raw_folder_lies(data_kit: Path, tmp_path: Path) -> None:
    here = ytvos(data_kit, tmp_path)
    shutil.copytree(data_kit / "refytvos", tmp_path / "elsewhere")
    there = replace(here, raw=f"file://{tmp_path}/elsewhere", out=f"file://{tmp_path}/out2", num_cpus=2)
    main(here)
    main(there)
    files = [sorted((tmp_path / out).glob("*.parquet")) for out in ("out", "out2")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.usefixtures("ray_local")
def test_changed_annotations_do_not_mix_with_what_is_there(data_kit: Path, tmp_path: Path) -> None:
    raw, _ = damaged(data_kit, tmp_path)
    config = replace(ytvos(data_kit, tmp_path), raw=str(raw))
    assert main(config) == Exit.QUARANTINE
    meta = raw / "meta_expressions/train/meta_expressions.json"
    meta.write_text(meta.read_text().replace("dog", "cat"))
    with pytest.raises(ValueError, match="the annotation files may have changed since"):
        main(config)


def test_a_wrong_raw_folder_leaves_nothing_behind(data_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"refcoco.*Point --raw at"):
        main(replace(ytvos(data_kit, tmp_path), dataset="refcoco"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "davis"}, "no dataset 'davis'. Choose one of: own, refcoco"),
        ({"quality": 0}, "--quality must be between 1 and 100"),
        ({"short_side": 0}, "--short-side must be 1 or more"),
        ({"rows_per_shard": -1}, "--rows-per-shard must be 1 or more"),
        ({"show": -1}, "--show must be 0 or more"),
        ({"frames": "images"}, "--frames is not for ref-youtube-vos, but for coco, youtube-vis, cvat"),
        ({"dataset": "cvat", "frames": "images", "videos": "films"}, "--frames and --videos cannot both be given"),
    ],
)
def test_an_odd_setting_is_an_error(data_kit: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(ytvos(data_kit, tmp_path), **change)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("ray_local")
def test_the_file_of_a_tool_is_prepared_with_frames_from_elsewhere(tmp_path: Path) -> None:
    write_frames(tmp_path / "images", ["a.jpg", "b.jpg"])
    mask = {"caption": "a cat", "segmentation": [[1, 2, 12, 3, 9, 14]]}
    content = {
        "images": [{"id": id, "file_name": f"{name}.jpg"} for id, name in enumerate("abc")],
        "annotations": [{"id": id, "image_id": id, **mask} for id in range(3)],
    }
    raw, out = write_json(tmp_path / "coco.json", content), tmp_path / "out"
    config = PrepareConfig("coco", "train", str(out), str(raw), frames=str(tmp_path / "images"))
    assert main(config) == Exit.QUARANTINE
    manifest = read_manifest(Folder(str(out)))
    assert [record.video for record in records_in(out, manifest)] == ["a", "b"]
    assert "c.jpg does not exist" in (out / QUARANTINE).read_text()
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(JobError, match=r"frames was '.*images' and is now '.*moved'"):
        main(replace(config, frames=str(tmp_path / "moved")))


@pytest.mark.usefixtures("ray_local")
def test_rejected_answers_are_left_out_and_what_the_table_says_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path, ["a.jpg", "b.jpg"])
    content = {
        "images": [{"id": id, "file_name": f"{name}.jpg"} for id, name in enumerate("ab")],
        "annotations": [
            {"id": id, "image_id": id // 2, "caption": f"cat {id}", "segmentation": [[1, 2, 12, 3, 9, 14]]}
            for id in range(4)
        ],
    }
    raw, out, table = write_json(tmp_path / "coco.json", content), tmp_path / "out", tmp_path / "verdicts.csv"
    config = PrepareConfig("coco", "train", str(out), str(raw), verdicts=str(table))

    def say(*lines: str) -> None:
        table.write_text("".join(f"{line}\n" for line in ("video,expression,verdict", *lines)))

    say("a,0,rejected", "b,1,accepted", "elsewhere,0,rejected")
    assert main(config) == Exit.CLEAN
    assert "1 of 2 rejected answers are no usable sentence here" in capsys.readouterr().out
    left = [
        (record.video, one.id)
        for record in records_in(out, read_manifest(Folder(str(out))))
        for one in record.expressions
    ]
    assert left == [("a", "1"), ("b", "0"), ("b", "1")]
    table.rename(tmp_path / "moved.csv")
    assert main(replace(config, verdicts=str(tmp_path / "moved.csv"))) == Exit.CLEAN
    assert "all 1 shards were already written" in capsys.readouterr().out
    say("a,0,rejected", "b,1,rejected")
    with pytest.raises(ValueError, match="was made from other raw data or settings"):
        main(config)
    say("c,0,rejected")
    with pytest.raises(
        JobError, match=r"none of the 1 rejected answers of .*verdicts.csv is a sentence of .*coco.json"
    ):
        main(replace(config, out=str(tmp_path / "another")))


@pytest.mark.usefixtures("ray_local")
def test_a_contact_sheet_can_be_drawn_later_without_the_raw_data(data_kit: Path, tmp_path: Path) -> None:
    config = ytvos(data_kit, tmp_path)
    main(config)
    later = replace(config, raw="", show=4)
    assert main(later) == Exit.CLEAN
    with Image.open(Path(config.out, SHEET)) as sheet:
        assert sheet.width > 1000 < sheet.height * 2
    with pytest.raises(JobError, match="holds ref-youtube-vos, split train"):
        main(replace(later, split="valid"))
    with pytest.raises(JobError, match="--raw is missing"):
        main(replace(later, show=0))


@pytest.mark.usefixtures("ray_local")
def test_the_saved_config_gives_the_same_run(data_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ytvos(data_kit, tmp_path)
    monkeypatch.chdir(data_kit)
    main(replace(config, raw="refytvos"))
    saved = read_config(PrepareConfig, str(tmp_path / "out" / CONFIG))
    assert saved == config, "paths are absolute, whatever was typed"


def test_sentences_nobody_can_learn_from_are_told_beside_what_was_left_out(
    data_kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = prepared("ref-youtube-vos", data_kit / "refytvos", "valid", tmp_path / "out")
    assert main(replace(ytvos(data_kit, tmp_path), split="valid", raw="", show=1)) == Exit.CLEAN
    assert f"not for training: {manifest.counts['expressions']} x {WITHHELD}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_local")
def test_a_dataset_with_nothing_to_learn_from_is_an_error(data_kit: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(data_kit / "refytvos/train/JPEGImages/31f1e819d1", raw / "JPEGImages/cart")
    shutil.copytree(data_kit / "refytvos/train/Annotations/31f1e819d1", raw / "Annotations/cart")
    (raw / "expressions.csv").write_text("video,object_id,text\ncart,9,the cart\n")
    out = tmp_path / "out"
    with pytest.raises(JobError, match=f"no expression is left: 1 videos are in quarantine. {out}"):
        main(PrepareConfig("own", "train", str(out), str(raw), allow_failures=True))
    (bad,) = map(json.loads, (out / QUARANTINE).read_text().splitlines())
    assert "speak of object 9, but there are only pixels of 1, 2, 3" in bad["reason"]


@pytest.mark.slow
def test_the_command_says_what_went_wrong_and_ends_so(data_kit: Path, tmp_path: Path) -> None:
    raw, said = damaged(data_kit, tmp_path)
    words = [sys.executable, str(ROOT / "jobs/prepare.py"), "--dataset", "ref-youtube-vos", "--split", "train"]
    words += ["--raw", str(raw), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=PATIENCE)
    assert run.returncode == Exit.QUARANTINE, run.stderr[-3000:]
    assert "2 videos" in run.stdout
    assert "in quarantine: 5" in run.stdout
    quarantined = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
    assert [one["video"] for one in quarantined] == sorted(said)
    for one in quarantined:
        assert said[one["video"]] in one["reason"], one
        assert one["reason"] in run.stdout
    again = subprocess.run([*words, "--allow-failures"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert again.returncode == Exit.CLEAN, again.stderr[-3000:]
    wrong = subprocess.run([*words, "--split", "nope"], capture_output=True, text=True, env=environment)
    assert wrong.returncode == Exit.FAILED
    assert wrong.stderr.endswith("ref-youtube-vos has no split 'nope'. Choose one of: train, valid, test.\n")


def test_a_full_disk_is_told_in_one_sentence(
    data_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> Iterator[int]:
        yield 1000
        raise JobError("OSError: [Errno 28] No space left on device")

    monkeypatch.setattr(impl, "start_ray", lambda _: None)
    monkeypatch.setattr(impl, "write_shards", full)
    config = ytvos(data_kit, tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(PrepareConfig, main, arguments(config))
    assert ended.value.code == Exit.FAILED
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: 1 of 3 shards are done and kept. The run stopped because: OSError: [Errno 28] No space left on device",
        "Free disk space or correct what it says, and run the same command again to continue.",
    ]


def test_a_disk_that_is_full_at_the_very_end_is_told_in_one_sentence(
    data_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Manifest:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(impl, "start_ray", lambda _: None)
    monkeypatch.setattr(impl, "write_shards", lambda *_: iter(()))
    monkeypatch.setattr(impl, "finish", full)
    config = ytvos(data_kit, tmp_path)
    with pytest.raises(JobError, match=rf"{config.out} cannot be written .*No space left.* run the same command again"):
        main(config)


def arguments(config: PrepareConfig) -> list[str]:
    """The flags that give this config."""
    flags = {"dataset": config.dataset, "split": config.split, "out": config.out, "raw": config.raw}
    flags["rows-per-shard"] = str(config.rows_per_shard)
    return [part for name, value in flags.items() for part in (f"--{name}", value)]
