"""jobs/submit.py, on predictions made up for the real samples of the data kit."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.impl.submit import FORMATS
from jobs.submit import FormatName, SubmitConfig, main
from patience import PATIENCE
from pipelines.errors import Exit, JobError
from pipelines.exports.mask_zip import YTVOS_ROOT, write_mask_zip
from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import read_object_maps, read_submission
from pipelines.files import Folder
from pipelines.prediction_reader import read_predictions
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from pipelines.records import Expression, Record
from pipelines.sources.base import Source
from pipelines.sources.davis import RefDavis17
from pipelines.sources.mevis import MeViS
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.masks import masks_to_rles

Predict = Callable[[Source], str]


def drawn(record: Record, said: Expression) -> np.ndarray:
    """Some mask of every frame, one that depends on the expression."""
    rng = np.random.default_rng([len(said.text), int(said.id)])
    low = rng.random((len(record.frame_names), 6, 8)) < 0.3
    rows, columns = np.arange(record.height) * 6 // record.height, np.arange(record.width) * 8 // record.width
    return low[:, rows][:, :, columns]


def prediction(record: Record, said: Expression) -> Prediction:
    masks = drawn(record, said)
    t = len(masks)
    track = QueryTrack(tuple(masks_to_rles(masks)), ((1.0, 2.0, 3.0, 5.0),) * t, (0.5,) * t)
    merged = said.annotator is not None and int(said.id) < 4
    return Prediction(
        dataset=record.dataset,
        split=record.split,
        video=record.video,
        expression=said.id,
        text=said.text,
        width=record.original_width,
        height=record.original_height,
        frame_names=record.frame_names,
        queries=(track,),
        score=0.5,
        fingerprint="a checkpoint",
        source=record.source,
        source_fingerprint=record.source_fingerprint,
        external_id=said.external_id,
        annotator=said.annotator,
        merged=tuple(encode_object_map(mask.astype(int)) for mask in masks) if merged else None,
    )


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """Predictions of every expression of a source, a file a video; the path of their folder."""

    def made(source: Source) -> str:
        folder = tmp_path / "run" / "predictions"
        folder.mkdir(parents=True)
        for item in source.items():
            record = source.read(item).record
            rows = [prediction(record, said) for said in record.expressions]
            pq.write_table(predictions_table(rows), folder / f"{record.video}.parquet")
        return str(tmp_path / "run")

    return made


def ytvos(kit: Path) -> RefYouTubeVOS:
    return RefYouTubeVOS(Folder(str(kit / "refytvos")), "valid")


def test_the_zip_of_ref_youtube_vos_has_exactly_what_the_meta_files_ask_for(
    data_kit: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    source, kit = ytvos(data_kit), data_kit / "refytvos"
    config = SubmitConfig(predict(source), "ref-youtube-vos", str(tmp_path / "out" / "a.zip"), meta=str(kit))
    assert main(config) == Exit.CLEAN
    listed = {
        split: json.loads((kit / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
        for split in ("valid", "test")
    }
    wanted = {
        f"Annotations/{video}/{expression}/{frame}.png"
        for video, entry in listed["valid"].items()
        if video not in listed["test"]
        for expression in entry["expressions"]
        for frame in entry["frames"]
    }
    assert set(zipfile.ZipFile(config.out).namelist()) == wanted
    masks = {(one.video, one.expression, one.frame): one.mask for one in read_submission(config.out)}
    for item in source.items():
        record = source.read(item).record
        for said in record.expressions:
            found = np.stack([masks[record.video, said.id, name] for name in record.frame_names])
            np.testing.assert_array_equal(found, drawn(record, said))
    printed = capsys.readouterr().out
    assert f"wrote {config.out}: {len(wanted)} PNGs" in printed
    assert "(valid without the videos that" in printed
    assert "3 videos, every expression, every frame, sizes as the images" in printed
    assert f"read back: {len(wanted)} PNGs, each whole, of mode L" in printed


def test_an_expression_without_words_gets_empty_masks(
    data_kit: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, raw = data_kit / "refytvos", tmp_path / "raw"
    shutil.copytree(kit / "meta_expressions", raw / "meta_expressions")
    (raw / "valid").symlink_to(kit / "valid")
    file = raw / "meta_expressions/valid/meta_expressions.json"
    listed = json.loads(file.read_text())
    video = min(path.name for path in (kit / "valid/JPEGImages").iterdir())
    listed["videos"][video]["expressions"] |= {"7": {"exp": " \n\u00a0"}}
    file.write_text(json.dumps(listed))
    run = predict(RefYouTubeVOS(Folder(str(raw)), "valid"))
    config = SubmitConfig(run, "ref-youtube-vos", str(tmp_path / "a.zip"), meta=str(raw))
    assert main(config) == Exit.CLEAN
    said = capsys.readouterr().out
    assert f"1 expressions have no words in {file}: their masks are empty" in said
    assert "complete according to" in said
    masks = [one.mask for one in read_submission(config.out) if (one.video, one.expression) == (video, "7")]
    assert len(masks) == len(listed["videos"][video]["frames"])
    assert not np.any(masks)
    assert sum(one.mask.any() for one in read_submission(config.out) if one.video == video)


def test_running_it_again_gives_the_same_bytes(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    config = SubmitConfig(predict(ytvos(data_kit)), "ref-youtube-vos", str(tmp_path / "a.zip"))
    main(config)
    first = Path(config.out).read_bytes()
    main(config)
    assert Path(config.out).read_bytes() == first


def test_ref_davis_is_written_for_all_four_annotators(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    root = str(data_kit / "refdavis_raw")
    run = predict(RefDavis17(Folder(root), "valid"))
    for name in ("maps.zip", "maps"):
        assert main(SubmitConfig(run, "ref-davis17", str(tmp_path / name), meta=root)) == Exit.CLEAN
        found = [(one.annotator, one.video, one.frame) for one in read_object_maps(tmp_path / name)]
        videos = json.loads(
            (data_kit / "refdavis_raw_expected/meta_expressions/valid/meta_expressions.json").read_text()
        )["videos"]
        assert found == [
            (annotator, video, f"{number:05d}")
            for annotator in range(4)
            for video in sorted(videos)
            for number in range(len(videos[video]["frames"]))
        ]


def test_refcoco_becomes_results_and_own_tools_get_tracks(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    root = str(data_kit / "refcoco")
    run = predict(RefCoco(Folder(root), "val"))
    assert main(SubmitConfig(run, "coco", str(tmp_path / "a.json"), meta=root)) == Exit.CLEAN
    results = json.loads((tmp_path / "a.json").read_text())
    assert [result["bbox"] for result in results] == [[1, 2, 2, 3]] * len(results)
    for name in ("youtube-vis", "coco-frames"):
        assert main(SubmitConfig(run, name, str(tmp_path / "b.json"), meta=root)) == Exit.CLEAN
        assert len(json.loads((tmp_path / "b.json").read_text())["annotations"]) == len(results)


def test_the_zip_of_mevis_has_the_videos_at_its_root(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    kit, raw = data_kit / "refytvos", tmp_path / "mevis" / "valid"
    raw.mkdir(parents=True)
    (raw / "JPEGImages").symlink_to(kit / "valid/JPEGImages")
    videos = json.loads((kit / "meta_expressions/valid/meta_expressions.json").read_text())["videos"]
    there = {video: entry for video, entry in videos.items() if (kit / "valid/JPEGImages" / video).exists()}
    (raw / "meta_expressions.json").write_text(json.dumps({"videos": there}))
    root = str(tmp_path / "mevis")
    config = SubmitConfig(predict(MeViS(Folder(root), "valid")), "mevis", str(tmp_path / "a.zip"), meta=root)
    assert main(config) == Exit.CLEAN
    assert {name.split("/")[0] for name in zipfile.ZipFile(config.out).namelist()} == set(there)


@pytest.mark.parametrize("name", ["mevis", "ref-davis17", "coco"])
def test_predictions_of_another_dataset_are_refused_with_the_formats_that_fit(
    data_kit: Path, tmp_path: Path, predict: Predict, name: FormatName
) -> None:
    config = SubmitConfig(predict(ytvos(data_kit)), name, str(tmp_path / "a.zip"))
    with pytest.raises(
        JobError, match=r"predictions of ref-youtube-vos, .* Choose one of: ref-youtube-vos, youtube-vis"
    ):
        main(config)
    assert not Path(config.out).exists()


def test_a_meta_file_of_another_dataset_is_refused(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    meta = data_kit / "refdavis/meta_expressions/valid/meta_expressions.json"
    config = SubmitConfig(predict(ytvos(data_kit)), "ref-youtube-vos", str(tmp_path / "a.zip"), meta=str(meta))
    with pytest.raises(ValueError, match="have nothing in common"):
        main(config)
    assert not Path(config.out).exists()


def test_a_missing_video_stops_it_unless_that_is_allowed(
    data_kit: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predict(ytvos(data_kit))
    (gone, *_) = sorted(Path(run, "predictions").iterdir())
    gone.unlink()
    config = SubmitConfig(run, "ref-youtube-vos", str(tmp_path / "a.zip"), meta=str(data_kit / "refytvos"))
    with pytest.raises(JobError, match=rf"1 missing: video {gone.stem}\. Nothing was written"):
        main(config)
    assert not Path(config.out).exists()
    allowed = SubmitConfig(run, "ref-youtube-vos", config.out, meta=config.meta, allow_missing=True)
    assert main(allowed) == Exit.QUARANTINE
    assert f"1 missing: video {gone.stem}" in capsys.readouterr().out
    assert {one.video for one in read_submission(config.out)} == {path.stem for path in gone.parent.iterdir()}


def test_a_corrupt_file_of_predictions_is_named(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    run = predict(ytvos(data_kit))
    (spoilt, *_) = sorted(Path(run, "predictions").iterdir())
    spoilt.write_bytes(spoilt.read_bytes()[:-50])
    with pytest.raises(ValueError, match=rf"{spoilt.name} is damaged"):
        main(SubmitConfig(run, "ref-youtube-vos", str(tmp_path / "a.zip")))


def test_every_format_can_be_asked_for_by_name() -> None:
    assert set(FORMATS) == set(FormatName.__args__)


def submit(*words: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).resolve().parents[2] / "jobs" / "submit.py"
    return subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_worker_of_the_cluster_writes_the_same(data_kit: Path, tmp_path: Path, predict: Predict) -> None:
    run, out = predict(ytvos(data_kit)), tmp_path / "a.zip"
    assert main(SubmitConfig(run, "ref-youtube-vos", str(out))) == Exit.CLEAN
    write_mask_zip(read_predictions(Folder(run)), Folder(str(tmp_path)), "b.zip", root=YTVOS_ROOT)
    assert out.read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.slow
def test_the_command_line_writes_the_zip_and_tells_what_is_wrong_in_a_sentence(
    data_kit: Path, tmp_path: Path, predict: Predict
) -> None:
    words = ("--predictions", predict(ytvos(data_kit)), "--out", str(tmp_path / "a.zip"))
    done = submit(*words, "--format", "ref-youtube-vos", "--meta", str(data_kit / "refytvos"))
    assert done.returncode == 0, done.stderr
    assert "read back: " in done.stdout
    done = submit(*words, "--format", "mevis")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
