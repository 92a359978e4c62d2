"""jobs/submit.py, on predictions made up for the real samples of the data kit."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from jobs.evaluate import EvaluateConfig
from jobs.evaluate import main as evaluate_main
from jobs.impl.evaluate import evaluate
from jobs.impl.submit import FORMATS
from jobs.submit import FormatName, SubmitConfig, main
from patience import PATIENCE
from pipelines.errors import Exit, JobError
from pipelines.exports.mask_zip import YTVOS_ROOT, write_mask_zip
from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import read_object_maps, read_submission
from pipelines.files import UNFINISHED, Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from pipelines.records import Expression, Record
from pipelines.sources.base import Source
from pipelines.sources.catalog import entry_of
from pipelines.sources.davis import RefDavis17
from pipelines.sources.mask_dict import MaskDict
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.vots import Vots, result_name
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.masks import masks_to_rles
from small_layouts import LAYOUTS, davis_converted, vots

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


@pytest.mark.parametrize("name", ["a.zip", "maps", "maps.json"])
def test_a_file_that_is_not_read_back_as_it_was_written_does_not_replace_an_older_one(
    tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = FORMATS["ref-davis17"]

    def spoilt(predictions: Predictions, out: Folder, name: str) -> str:
        path = Path(out.path(name))
        if path.is_dir():
            next(path.rglob("*.png")).unlink()
        else:
            path.write_bytes(path.read_bytes()[:-100])
        return whole.check(predictions, out, name)

    davis_converted(tmp_path / "raw")
    run = predict(RefDavis17(Folder(str(tmp_path / "raw")), "valid"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "other.txt").write_text("mine")
    for earlier in (False, True):
        if earlier:
            assert main(SubmitConfig(run, "ref-davis17", str(out / name))) == Exit.CLEAN
        before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
        with monkeypatch.context() as patch:
            patch.setitem(FORMATS, "ref-davis17", whole._replace(check=spoilt))
            with pytest.raises(
                JobError, match=r"read back is not what was written: .* --out was not touched\."
            ) as told:
                main(SubmitConfig(run, "ref-davis17", str(out / name)))
        assert str(out / name) in str(told.value)
        assert UNFINISHED not in str(told.value)
        assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before


def test_a_folder_of_maps_is_not_written_to_a_store(tmp_path: Path, predict: Predict) -> None:
    davis_converted(tmp_path / "raw")
    run = predict(RefDavis17(Folder(str(tmp_path / "raw")), "valid"))
    with pytest.raises(JobError, match=r"would be a folder, which has to be a local one\. Choose maps\.json\.zip"):
        main(SubmitConfig(run, "ref-davis17", "s3://bucket/maps.json"))


@pytest.mark.parametrize("tracker", ["", "my_tracker", "my tracker", "é", "a\n"])
def test_a_name_of_a_tracker_that_the_server_may_refuse_is_told_at_once(tracker: str) -> None:
    with pytest.raises(JobError, match=r"--tracker '.*' should be letters, digits and hyphens: VOT asks for a name"):
        SubmitConfig("run", "vots", "a.zip", tracker=tracker)


def test_the_zip_of_vots_is_compared_with_the_workspace_and_names_the_tracker(
    tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "workspace" / "sequences"
    vots(raw)
    run = predict(Vots(Folder(str(raw)), "valid"))
    config = SubmitConfig(run, "vots", str(tmp_path / "a.zip"), meta=str(raw.parent), tracker="SgMg-2")
    assert main(config) == Exit.CLEAN
    said = capsys.readouterr().out
    assert f"complete according to {raw / 'list.txt'} (every sequence): 1 videos, every expression, every frame" in said
    assert "read back: 2 files, each with a line for every frame of its sequence" in said
    with zipfile.ZipFile(config.out) as archive:
        names = [f"baseline/v/{result_name('v', text)}.txt" for text in ("a dog", "it")]
        assert set(archive.namelist()) == {*names, "manifest.yml"}
        assert json.loads(archive.read("manifest.yml"))["identifier"] == "SgMg-2"
    (raw / "list.txt").write_text("v\nw\n")
    shutil.copytree(raw / "v", raw / "w")
    with pytest.raises(JobError, match=r"does not match .*list\.txt \(every sequence\): 1 missing: video w\. Nothing"):
        main(config)
    with pytest.raises(JobError, match=r"be compared with predictions of vots valid: .*list\.txt does not exist"):
        main(replace(config, meta=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("layout", "name", "out"),
    [
        ("mevis v2", "mevis", "a.zip"),
        ("long-rvos", "mevis", "a.zip"),
        ("revos", "mevis", "a.zip"),
        ("ref-sav", "ref-sav", "a.json"),
        ("vots", "vots", "a.zip"),
    ],
)
def test_a_submission_has_the_figures_of_its_predictions(
    tmp_path: Path, predict: Predict, layout: str, name: FormatName, out: str
) -> None:
    dataset, split, make = LAYOUTS[layout]
    raw, data, file = str(tmp_path / "raw"), str(tmp_path / "data"), str(tmp_path / out)
    make(Path(raw))
    assert prepare.main(prepare.PrepareConfig(dataset, split, data, raw)) == Exit.CLEAN
    run = predict(entry_of(dataset).open(Folder(raw), split))
    assert main(SubmitConfig(run, name, file, meta=raw)) == Exit.CLEAN
    ours = evaluate(EvaluateConfig((data,), str(tmp_path / "ours"), run))
    theirs = evaluate(EvaluateConfig((data,), str(tmp_path / "theirs"), submission=file))
    assert any(0 < figure < 1 for figure in ours["figures"].values())
    assert theirs["figures"] == ours["figures"]
    rows = [pq.read_table(tmp_path / scores / "expressions.parquet").to_pylist() for scores in ("ours", "theirs")]
    assert rows[0] == rows[1]
    evaluate_main(EvaluateConfig((data,), str(tmp_path / "both"), compare=(run, file)))
    first, second = json.loads((tmp_path / "both/comparison.json").read_text())["total"]["scores"]
    assert first == second > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_files_that_are_no_submission_of_the_dataset_are_told_before_anything_is_scored(tmp_path: Path) -> None:
    out = str(tmp_path / "scores")
    for layout in ("vots", "ref-sav", "own"):
        dataset, split, make = LAYOUTS[layout]
        make(tmp_path / layout)
        prepare.main(prepare.PrepareConfig(dataset, split, str(tmp_path / f"data {layout}"), str(tmp_path / layout)))

    def told(layout: str, **given: Any) -> str:
        with pytest.raises(JobError) as error:
            evaluate_main(EvaluateConfig((str(tmp_path / f"data {layout}"),), out, **given))
        return str(error.value)

    assert "--submission a.zip: results of ref-sav are a file that ends in .json" in told("ref-sav", submission="a.zip")
    assert "a.json is taken for COCO results" in told("vots", submission="a.json")
    said = told("vots", compare=("a.json", "b.zip"))
    assert said == "--compare a.json: results of vots are a zip (or folder) of text files. Give such."
    assert "no submission of own can be scored" in told("own", submission="a.zip")
    assert not Path(out).exists()


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
    config = SubmitConfig(predict(MaskDict(Folder(root), "valid")), "mevis", str(tmp_path / "a.zip"), meta=root)
    assert main(config) == Exit.CLEAN
    assert {name.split("/")[0] for name in zipfile.ZipFile(config.out).namelist()} == set(there)


def test_sentences_without_target_are_in_the_zip_that_the_meta_file_asks_for(
    data_kit: Path, tmp_path: Path, predict: Predict
) -> None:
    kit, raw = data_kit / "refytvos/train", tmp_path / "mevis" / "valid_u"
    video = "31f1e819d1"
    (raw / "JPEGImages").mkdir(parents=True)
    (raw / "JPEGImages" / video).symlink_to(kit / "JPEGImages" / video)
    frames = sorted(path.stem for path in (kit / "JPEGImages" / video).iterdir())
    said = {"0": {"exp": "gone", "obj_id": [0], "anno_id": [1]}, "1": {"exp": "none", "obj_id": [], "anno_id": []}}
    videos = {video: {"vid_id": 0, "frames": frames, "expressions": said}}
    (raw / "meta_expressions_v2.json").write_text(json.dumps({"videos": videos}))
    (raw / "mask_dict.json").write_text(json.dumps({"1": [None] * len(frames)}))
    root = str(tmp_path / "mevis")
    run = predict(MaskDict(Folder(root), "valid_u", "mevis-v2"))
    assert main(SubmitConfig(run, "mevis", str(tmp_path / "a.zip"), meta=root)) == Exit.CLEAN
    assert len(zipfile.ZipFile(tmp_path / "a.zip").namelist()) == 2 * len(frames)


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
