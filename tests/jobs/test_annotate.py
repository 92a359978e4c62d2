"""jobs/annotate.py: video files and sentences in, mask tracks out; the model is a multi-object one."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from annotate_data import damage, moving, write_video
from jobs.annotate import AnnotateConfig, main
from jobs.common.cli import parse
from patience import PATIENCE
from pipelines.annotate.events import LongVideo, News, ShardDone, VideoSeen
from pipelines.annotate.layout import WRITTEN, ExpressionGroup
from pipelines.annotate.run import Joined
from pipelines.annotate.settings import Settings
from pipelines.annotate.summary import Progress
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.annotate.window_rows import window_row
from pipelines.config_io import CONFIG, read_config
from pipelines.errors import Exit, Failure, JobError
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor import Predictor
from pipelines.ledger import PREDICTIONS, Entry, Ledger
from pipelines.manifest import QUARANTINE
from pipelines.prediction_reader import iter_predictions
from pipelines.predictions import Prediction
from pipelines.records import Expression, Record
from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import Video
from pipelines.video.segments import segments
from prepared_data import SENTENCES, png, tiny_checkpoint, tiny_model
from sgmg.masks import rles_to_masks
from sgmg.resize import resized_size
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer

SIDE = 130
COMMAND = ["--videos", "v", "--checkpoint", "c", "--out", "o"]
LENGTHS = {"a/clip.mp4": 20, "b/clip.mp4": 3, 'b/it\'s "50%" ünder.mkv': 9}
"""Videos and their frames: several windows, and less than one."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, t) in enumerate(LENGTHS.items()):
        write_video(folder / name, moving(number, t))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", multi_object=True)


def config_of(videos: Path, checkpoint: Path, out: Path, **settings: Any) -> AnnotateConfig:
    given = {
        "short_side": SIDE, "window": 8, "overlap": 2, "min_score": 0.02, "track": False, "text": SENTENCES[:2],
        "actors": "1:1",
    }  # fmt: skip
    return AnnotateConfig((str(videos),), str(checkpoint), str(out), **{**given, **settings})


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / PREDICTIONS).iterdir())}


def quarantine_of(out: Path) -> list[tuple[str, str, str]]:
    lines = map(json.loads, (out / QUARANTINE).read_text().splitlines())
    return [(Path(line["video"]).name, line["stage"], line["reason"]) for line in lines]


def found_in(out: Path) -> list[Prediction]:
    return list(iter_predictions(Folder(str(out))))


def expected(path: Path, sentences: Sequence[Expression], min_score: float) -> list[Prediction]:
    """What the model says of a video, without Ray: window by window, then joined."""
    video = Video(str(path))
    protocol = Settings(min_score=min_score).protocol(SIDE)
    predictor = Predictor(tiny_model(multi_object=True), Tokenizer.train(SENTENCES), protocol, device="cpu")
    found = []
    with VideoDecoder(PATIENCE) as decoder:
        (part,) = segments(video, decoder.timeline(video), length=8, overlap=2)
        height, width = part.info.shown_height, part.info.shown_width
        for window in decoder.windows(part, resized_size(height, width, SIDE)):
            record = Record(
                "videos", "", video.id, width, height, window.names, (b"",) * len(window.names), (), tuple(sentences),
                video.path, "", width, height, timestamps=tuple(window.timestamps.tolist()),
            )  # fmt: skip
            many = len(part.windows) > 1
            one = ModelFrames(record, tuple(range(len(window.frames))), window.frames, one_of_many=many)
            found.append([window_row(record, answer, "", "") for answer in predictor.answer(one)])
    (rows,) = join_windows(found, JoinSettings(min_score, ""))
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local", "one_thread")
def test_a_run_finds_what_the_model_says_and_the_next_one_does_what_is_new(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ("parquet", "frames", "youtube-vis", "coco", "cvat", "png", "davis")
    config = config_of(videos, checkpoint, tmp_path / "out", formats=formats, actors="1:2", min_score=0.01)
    assert main(config) == Exit.CLEAN
    said = capsys.readouterr().out
    assert "3 videos annotated" in said
    assert "6 expressions answered" in said
    assert "up to 8 sentences of a video were asked together" in said
    assert "32 frames" in said

    found = found_in(tmp_path / "out")
    paths = {Video(str(videos / name)).id: name for name in LENGTHS}
    assert Counter(paths[one.video] for one in found) == Counter(dict.fromkeys(LENGTHS, 2))
    for video, name in paths.items():
        rows = [one for one in found if one.video == video]
        wanted = expected(videos / name, [Expression(row.expression, row.text) for row in rows], 0.01)
        for row, other in zip(rows, wanted, strict=True):
            assert len(row.frame_names) == LENGTHS[name]
            assert (row.frame_names, row.source) == (other.frame_names, str(videos / name))
            assert row.timestamps == pytest.approx([place / 10 for place in range(LENGTHS[name])], abs=1e-3)
            assert rles_to_masks(row.queries[0].rle, (40, 56)).any()
            assert row.queries[0].rle == other.queries[0].rle
            assert row.queries[0].scores == tuple(map(np.float32, other.queries[0].scores))  # as Parquet keeps them

    with zipfile.ZipFile(tmp_path / "out" / "png.zip") as pngs:
        assert len(pngs.namelist()) == 2 * 32
    with zipfile.ZipFile(tmp_path / "out" / "davis.zip") as pngs:
        assert len(pngs.namelist()) == 32 + 1
    tracks = json.loads((tmp_path / "out" / "youtube_vis.json").read_text())
    assert [len(tracks[key]) for key in ("videos", "categories", "annotations")] == [3, 2, 6]
    assert {one["source"]: one["fps"] for one in tracks["videos"]} == {
        str(videos / name): pytest.approx(10, abs=0.01) for name in LENGTHS
    }
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out" / "frames").rglob("*.jpg")}
    assert {one["file_name"] for one in images} == files
    assert len(files) == len(images) == 32
    assert {path.stem for path in (tmp_path / "out" / "cvat").iterdir()} == set(paths)
    saved = read_config(AnnotateConfig, str(tmp_path / "out" / CONFIG))
    assert saved.made_by is not None
    assert {one.fingerprint for one in found} == {saved.made_by["fingerprint"]}

    kinds = (".parquet", ".zip", ".jpg", ".xml")
    everything = [path for path in (tmp_path / "out").rglob("*") if path.suffix in kinds]
    before = {path: path.stat().st_mtime_ns for path in everything}
    assert len(before) == 1 + 2 + 32 + 3  # three short videos share a shard
    assert main(config) == Exit.CLEAN
    assert "0 videos annotated" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in everything} == before

    one, two = [row for row in found if row.video == found[0].video]
    verdicts = tmp_path / "verdicts.csv"
    again = replace(
        config, out=str(tmp_path / "again"), formats=("parquet",), redo=("rejected",), verdicts=str(verdicts)
    )
    verdicts.write_text(f"video,expression,verdict\n{one.video},{one.expression},rejected\n")
    assert main(again) == Exit.CLEAN
    assert [row.expression for row in found_in(tmp_path / "again")] == [one.expression]
    assert main(replace(again, formats=("parquet", "coco"))) == Exit.CLEAN, "for one format more"
    verdicts.write_text(f"video,expression,verdict\n{two.video},{two.expression},rejected\n")
    with pytest.raises(JobError, match=r"redo was '1 answers, .*Choose another --out"):
        main(again)
    capsys.readouterr()

    assert main(replace(config, text=SENTENCES)) == Exit.CLEAN
    assert re.search(r"3 expressions answered, \d of them absent; 6 were answered before", capsys.readouterr().out)
    old = {path: time for path, time in before.items() if path.suffix in (".parquet", ".jpg")}
    assert {path: path.stat().st_mtime_ns for path in old} == old
    assert len(found_in(tmp_path / "out")) == 9
    with pytest.raises(JobError, match=r"min_score was 0\.01 and is now 0\.5"):
        main(replace(config, min_score=0.5))
    with pytest.raises(JobError, match=r"sentences_together was 8 and is now 1"):
        main(replace(config, sentences_together=1))
    crowd = replace(config, text=tuple(f"{SENTENCES[0]} {number}" for number in range(253)))
    with pytest.raises(JobError, match=r"3 videos cannot be written as davis:(\n.*has 256 sentences.*){3}"):
        main(crowd)
    assert len(found_in(tmp_path / "out")) == 9
    (tmp_path / "out" / "coco.json").unlink()
    (tmp_path / "out" / "coco.json").mkdir()
    (tmp_path / "out" / WRITTEN / "coco.json").unlink()
    with pytest.raises(JobError, match=r"not everything is written:\n  coco: .*coco\.json"):
        main(replace(config, text=SENTENCES))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_whatever_cannot_be_used_is_in_quarantine_and_the_rest_is_done(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    write_video(folder / "good.mp4", moving(0, 5))
    damage(write_video(folder / "hole.mp4", moving(1, 40), codec="libx264"), frame=15)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "poem.mp4").write_text("Whose woods these are I think I know")
    table = tmp_path / "asked.csv"
    long = "a " * 1000
    table.write_text(
        "video,expression,id\ngood,the ball,1\ngood,the dog,\nhole,the ball,1\nempty,the ball,1\npoem,the ball,1\n"
        f"nowhere,the ball,1\ngood,,4\ngood,{long},5\ngood,the ball,6\nclip,the ball,1\n"
    )
    config = config_of(folder, checkpoint, tmp_path / "out", text=(), expressions=str(table))
    config = replace(config, videos=(str(folder), str(videos), str(tmp_path / "missing.mp4")))
    assert main(config) == Exit.QUARANTINE
    said = quarantine_of(tmp_path / "out")
    assert {(name, stage) for name, stage, _ in said} == {
        ("missing.mp4", "list"), ("nowhere", "list"), ("good", "list"), ("good.mp4", "list"), ("clip", "list"),
        ("empty.mp4", "decode"), ("poem.mp4", "decode"),
    }  # fmt: skip
    reasons = " ".join(reason for _, _, reason in said)
    for part in ("does not exist", "matches none", "is empty", "has 1999 characters", "twice", "matches 2 videos"):
        assert part in reasons
    found = found_in(tmp_path / "out")
    assert [(Path(one.source).name, one.text) for one in found if "good" in one.source] == [
        ("good.mp4", "the ball"),
        ("good.mp4", "the dog"),
    ]
    (hole,) = (one for one in found if "hole" in one.source)
    assert hole.frame_names == tuple(f"{place:05d}" for place in [*range(15), *range(24, 40)])
    assert (hole.status, "of its frames are damaged or gone" in hole.note) == ("partial", True)
    assert "in quarantine: " in capsys.readouterr().out

    assert main(replace(config, allow_failures=True)) == Exit.CLEAN
    write_video(folder / "empty.mp4", moving(2, 4))
    (folder / "poem.mp4").unlink()
    table.write_text("video,expression,id\ngood,the ball,1\nempty,the ball,1\n")
    assert main(replace(config, videos=(str(folder),))) == Exit.CLEAN
    assert quarantine_of(tmp_path / "out") == []
    assert len(found_in(tmp_path / "out")) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_overlays_are_drawn_once_and_one_whose_video_is_gone_is_told(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    paths = [write_video(folder / f"{name}.mp4", moving(number, 5)) for number, name in enumerate("ab")]
    config = config_of(folder, checkpoint, out, text=SENTENCES[:1], formats=("overlay", "report"))
    assert main(config) == Exit.CLEAN
    drawn = {path.stem: path.stat().st_mtime_ns for path in (out / "overlay").glob("*.mp4")}
    assert drawn.keys() == {Video(str(path)).id for path in paths}
    assert (out / "report" / "index.html").is_file()

    (out / "overlay" / f"{Video(str(paths[1])).id}.mp4").unlink()
    paths[1].unlink()
    (out / "overlay" / f"{UNFINISHED}b.mp4").touch()  # of a driver that was killed
    assert main(config) == Exit.QUARANTINE
    assert not [path for path in (out / "overlay").iterdir() if path.name.startswith(UNFINISHED)]
    assert quarantine_of(out) == [("b.mp4", "overlay", "the file is gone, or was never there")]
    assert {path.stem: path.stat().st_mtime_ns for path in (out / "overlay").glob("*.mp4")}.items() < drawn.items()

    paths[1].write_bytes(paths[0].read_bytes())
    assert main(replace(config, text=SENTENCES[:2])) == Exit.CLEAN
    again = {path.stem: path.stat().st_mtime_ns for path in (out / "overlay").glob("*.mp4")}
    assert again.keys() == drawn.keys()
    assert not again.items() & drawn.items()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_the_summary_is_kept_in_mlflow(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = config_of(videos / "b", checkpoint, tmp_path / "out", storage=str(tmp_path / "runs"), track=True)
    assert main(config) == Exit.CLEAN
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("annotate")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["videos"], run.data.metrics["frames"]) == (2, 12)
    assert run.data.metrics["hours_of_video_per_hour"] > 0
    assert run.data.params["min_score"] == "0.02"

    assert main(config) == Exit.CLEAN
    again = client.get_run(run.info.run_id).data.metrics
    assert again == run.data.metrics


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local", "one_thread")
def test_a_causal_run_finds_what_a_stream_finds_and_says_so(checkpoint: Path, tmp_path: Path) -> None:
    frames = list(moving(0, 11))
    for number, frame in enumerate(frames):
        path = tmp_path / "images" / f"{number:05d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(frame))
    config = config_of(tmp_path / "images", checkpoint, tmp_path / "out", causal=True, overlap=None, min_score=0.0)
    assert main(config) == Exit.CLEAN
    rows = sorted(found_in(tmp_path / "out"), key=lambda row: row.expression)
    segmenter = Segmenter.from_checkpoint(checkpoint, device="cpu", short_side=SIDE)
    stream = segmenter.stream([row.text for row in rows], min_score=0.0)
    for t, answer in enumerate(map(stream.push, frames)):
        for row, mask, score in zip(rows, answer.masks, answer.scores, strict=True):
            assert (rles_to_masks([row.queries[0].rle[t]], (40, 56))[0] != mask).mean() < 1e-3
            assert row.queries[0].scores[t] == pytest.approx(score, abs=1e-4)
    with pytest.raises(JobError, match="causal"):
        main(replace(config, causal=False))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_no_window_crosses_a_cut(checkpoint: Path, tmp_path: Path) -> None:
    dark, light = next(moving(0, 1)) // 4, 200 + next(moving(9, 1)) // 8
    write_video(tmp_path / "videos" / "cut.mp4", [dark] * 12 + [light] * 12)
    whole = config_of(tmp_path / "videos", checkpoint, tmp_path / "whole", text=SENTENCES[:1], window=24)
    assert main(whole) == Exit.CLEAN
    assert main(replace(whole, out=str(tmp_path / "shots"), shots=True)) == Exit.CLEAN
    assert main(replace(whole, out=str(tmp_path / "halves"), window=12, overlap=0)) == Exit.CLEAN
    one, shots, halves = (found_in(tmp_path / name)[0].queries[0].scores for name in ("whole", "shots", "halves"))
    assert shots == halves
    assert shots != one


def test_the_command_line_is_understood() -> None:
    flags = ["--text", "a dog", "the cat", "--formats", "parquet", "overlay", "--fps", "6", "--actors", "2:8"]
    config = parse(AnnotateConfig, [*COMMAND, *flags, "--shots"])
    assert (config.videos, config.text, config.formats) == (("v",), ("a dog", "the cat"), ("parquet", "overlay"))
    assert config.settings == Settings(fps=6, shots=True)
    independent = parse(AnnotateConfig, [*COMMAND, "--expressions", "e.csv", "--independent-windows"])
    assert (independent.settings.overlap, independent.settings.independent) == (0, True)
    causal = parse(AnnotateConfig, [*COMMAND, "--text", "a dog", "--causal"])
    assert causal.settings == Settings(causal=True, overlap=7)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text": ()}, "either --expressions"),
        ({"expressions": "e.csv"}, "either --expressions"),
        ({"videos": ()}, "--videos"),
        ({"actors": "3:2"}, "--actors '3:2'"),
        ({"fps": -1.0}, r"--fps must be above 0 \(got -1\.0\)"),
        ({"min_score": 2.0}, r"--min-score must be between 0 and 1 \(got 2\.0\)"),
        ({"window": 4, "overlap": 4}, r"--overlap \(4\) must be smaller than --window \(4\)"),
        ({"causal": True, "overlap": 3}, "leave out --overlap 3"),
        ({"causal": True, "independent_windows": True}, "--causal and --independent-windows exclude each other"),
        ({"causal": True, "window": 7}, r"--window must be 8 or more with --causal \(got 7\)"),
        ({"time_limit": 0.0}, "--time-limit must be above 0"),
        ({"redo": ("rejected",)}, "Give --redo and --verdicts together"),
        ({"verdicts": "v.csv"}, "Give --redo and --verdicts together"),
        ({"short_side": 0}, "--short-side must be 1 or more"),
        ({"cpus_per_actor": -1.0}, "--cpus-per-actor must be 0 or more"),
    ],
)
def test_what_does_not_go_together_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AnnotateConfig(**{"videos": ("v",), "checkpoint": "c", "out": "o", "text": ("a",), **wrong})


def an_entry(video: str, *sentences: str, **values: Any) -> Entry:
    given = {"groups": 1, "frames": 36, "seconds": 1800.0, "file": "x.parquet", **values}
    return Entry(video, f"/{video}.mp4", "1", "file", tuple((one, "the dog") for one in sentences), **given)


def seen(video: str, kept: int = 0) -> VideoSeen:
    return VideoSeen(video, f"/{video}.mp4", "1", "file", kept)


def test_progress_counts_videos_sentences_and_hours() -> None:
    progress = Progress(videos=4, kept=2)
    lost = Failure("/gone.mp4", "decode", "gone")
    news = News(seen=(seen("v"), seen("w", kept=3), replace(seen("gone"), failure=lost)), retries=2)
    entries = (an_entry("v", "1", "2", "3", absent=1, seconds=3600.0), an_entry("gone", groups=0, failures=(lost,)))
    progress.count(ShardDone(news, "x.parquet", 1, entries, windows=1, frames=36, crashes=1, waited=1.0, busy=3.0))
    assert str(progress).startswith("3/4 videos, 3 sentences, 1 windows, ")
    assert "waiting for data 25%, 1 videos with failures, 1 failed actors" in str(progress)

    groups = tuple(ExpressionGroup("long", name, ()) for name in "ab")
    progress.count(ShardDone(News(long=(LongVideo(seen("long"), 3600.0, groups, 2, 2),))))
    assert progress.videos == 3
    for note in ("", "2 of its frames are damaged"):
        progress.count(Joined(an_entry("long", "1", seconds=3600.0, damage=note), size=1))
    said = progress.summary()
    assert "2 videos annotated, 2 had nothing left to do or failed; 1 are partial" in said
    assert "5 expressions answered, 1 of them absent; 5 were answered before" in said
    assert "72 frames, 2 hours of video in" in said
    assert "2 requests were repeated because the storage was busy" in said


def test_the_summary_for_mlflow_is_of_all_that_the_folder_holds() -> None:
    ledger = Ledger("settings")
    ledger.add("x.parquet", 1, [an_entry("a", "1", "2", "3"), an_entry("a", "4", absent=1)])
    ledger.add("y.parquet", 1, [an_entry("b", "1", frames=9, damage="odd"), an_entry("poem", groups=0)])

    def metrics_of(progress: Progress) -> dict[str, float]:
        return progress.figures([Failure("/w.mp4", "decode", "gone")], ledger)

    known = {
        "videos": 2, "videos_partial": 1, "frames": 45, "expressions": 5, "expressions_absent": 1, "failures": 1,
        "failures_decode": 1,
    }  # fmt: skip
    assert metrics_of(Progress(videos=0, kept=5)) == known
    progress = Progress(videos=1)
    progress.count(ShardDone(News(seen=(seen("a"),)), entries=(an_entry("a", "1"),)))
    found = metrics_of(progress)
    assert found.pop("hours_of_video") == 0.5
    assert found.pop("hours_of_video_per_hour") > 0
    assert found == known
