"""The demo with next to nothing to learn from: every step is a real job, and what it promises to leave is there.

Where SGMG_DEMO names the storage of a demo that has run, with its output in demo.log, that one is looked at instead of
the small one.
"""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from ray.job_submission import JobSubmissionClient

import canary
from jobs.common import submitter as _submitter
from pipelines.errors import JobError
from pipelines.files import Folder, join_uri
from pipelines.manifest import read_manifest
from pipelines.safety.secrets import redacted
from ray_heads import started_ray
from s3_server import S3Server
from training_runs import run_job

pytestmark = pytest.mark.xdist_group("demo")  # beside the training tests, which take as long

LITTLE = ("--pretrain-steps", "2", "--finetune-steps", "2", "--workers", "1")
MULTI = ("--multi-steps", "2")
DRAWN = ("--images", "8", "--videos", "3", "--valid-videos", "2")


@dataclass(frozen=True)
class Shown:
    """A demo that ended: its exit code, what it printed, its folder of results, and where that is, if elsewhere."""

    code: int
    text: str
    out: Path
    bucket: str = ""

    def named(self, name: str) -> str:
        """A file of the results, as it is printed."""
        return join_uri(self.bucket or str(self.out), name)

    @property
    def result(self) -> dict[str, float]:
        """The line for programs."""
        (line,) = re.findall(r"^RESULT (.*)$", self.text, flags=re.MULTILINE)
        return {name: float(value) for name, value in (word.split("=") for word in line.split())}


def finished_demo(storage: Path) -> tuple[Shown, tuple[str, ...]]:
    """A demo on made-up data, and its flags: the one that SGMG_DEMO names, else a small one, run into `storage`."""
    if ready := os.environ.get("SGMG_DEMO"):
        # Whoever sets the variable has seen it end well.
        return Shown(0, (Path(ready) / "demo.log").read_text(), Path(ready) / "demo"), ()
    flags = (*LITTLE, *DRAWN)
    code, text = run_job("demo", ["--storage", str(storage), *flags], storage.with_name("log of the first"))
    return Shown(code, text, storage / "demo"), flags


def assert_is_whole(demo: Shown, scored: str, raw: Path, lacking: str = "", more: Sequence[str] = ()) -> None:
    """Figures, also those named, pictures and the zip are there and agree; of one video, perhaps, nothing is in it."""
    result = demo.result
    assert set(result) == {"J&F", "mean_box", "whole_frame", *more}
    assert json.loads((demo.out / "results.json").read_text()) == pytest.approx(result, abs=1e-4)
    drawn = (demo.out / "raw").exists()
    assert read_manifest(Folder(str(demo.out / "prepared" / "valid"))).synthetic is drawn
    scores = json.loads((demo.out / scored / "scores" / "scores.json").read_text())
    assert scores["synthetic"] is drawn
    assert scores["figures"]["J&F"] == pytest.approx(result["J&F"], abs=1e-4)
    for name, figure in zip(("SgMg tiny", "the whole frame"), (result["J&F"], result["whole_frame"]), strict=True):
        assert re.search(rf"^{name} +J .* F .* J&F +{100 * figure:.1f}$", demo.text, flags=re.MULTILINE)
    # It has learned nothing to speak of, and says so where that shows.
    better = result["J&F"] > max(result["mean_box"], result["whole_frame"])
    assert demo.code == (0 if better else 1), demo.text
    assert better or "error: The model is no better than a baseline" in demo.text

    pictures = demo.out / scored / "scores" / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == sorted(scores["pictures"])
    best = [name for name in scores["pictures"] if name.startswith("best-")]
    with Image.open(demo.out / "demo.png") as picture, Image.open(pictures / min(best)) as first:
        assert np.array_equal(np.asarray(picture)[: first.height, : first.width], np.asarray(first.convert("RGB")))
    submission = demo.out / "ref-youtube-vos.zip"
    assert sorted(zipfile.ZipFile(submission).namelist()) == sorted(entries_of(raw, lacking))
    for name in ("ref-youtube-vos.zip", f"{scored}/scores/pictures", "demo.png"):
        assert re.search(rf"^\w+ +{re.escape(demo.named(name))}$", demo.text, flags=re.MULTILINE)
    looked_at = "MLflow at sqlite:///" if demo.bucket else f"make ui STORAGE={demo.out.parent}"
    assert f"\nruns         {looked_at}" in demo.text


def entries_of(raw: Path, lacking: str) -> set[str]:
    """What the server asks for, but for one video."""
    valid, test = (
        json.loads((raw / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
        for split in ("valid", "test")
    )
    return {
        f"Annotations/{video}/{expression}/{frame}.png"
        for video in valid.keys() - test.keys() - {lacking}
        for expression in valid[video]["expressions"]
        for frame in valid[video]["frames"]
    }


def the_short_ones(kit: Path, raw: Path) -> Path:
    """The real folder with two of its training videos and without the longest of valid, lest asking takes minutes."""
    shutil.copytree(kit / "meta_expressions", raw / "meta_expressions")
    for split, most in (("train", 2), ("valid", -1)):
        shutil.copytree(kit / split, raw / split)
        file = raw / "meta_expressions" / split / "meta_expressions.json"
        listed = json.loads(file.read_text())["videos"]
        short = sorted(listed, key=lambda video: len(listed[video]["frames"]))[:most]
        file.write_text(json.dumps({"videos": {video: listed[video] for video in short}}))
    return raw


def spoilt(raw: Path) -> str:
    """A video of valid of which a frame is cut short now."""
    listed = {
        split: json.loads((raw / f"meta_expressions/{split}/meta_expressions.json").read_text())["videos"]
        for split in ("valid", "test")
    }
    video = min(listed["valid"].keys() - listed["test"].keys())
    frame = raw / "valid/JPEGImages" / video / f"{listed['valid'][video]['frames'][0]}.jpg"
    frame.write_bytes(frame.read_bytes()[:100])
    return video


def made(storage: Path) -> dict[Path, int]:
    """What takes long to make, and when it was: prepared data, checkpoints, predictions."""
    files = [*storage.rglob("*.parquet"), *storage.rglob("*.safetensors"), *storage.rglob("*.jpg")]
    return {path: path.stat().st_mtime_ns for path in files if "scores" not in path.parts}


def runs(storage: Path) -> dict[str, list[Any]]:
    """Those in MLflow, by experiment."""
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    return {one.name: client.search_runs([one.experiment_id]) for one in client.search_experiments()}


@pytest.mark.slow
def test_a_made_up_dataset_goes_all_the_way_and_the_second_time_what_is_done_is_reused(tmp_path: Path) -> None:
    first, flags = finished_demo(tmp_path / "my runs")  # a blank in a path is nothing odd
    storage = first.out.parent
    assert " " in storage.name
    assert_is_whole(first, "valid", storage / "demo" / "raw" / "ytvos_root")
    tracked = runs(storage)
    assert [len(tracked[name]) for name in ("pretrain", "finetune", "evaluate")] == [1, 1, 1]
    assert tracked["evaluate"][0].data.metrics["synthetic-ref-youtube-vos_valid/J_and_F"] == pytest.approx(
        first.result["J&F"], abs=1e-4
    )
    before = made(storage)
    assert len(before) > 20

    code, text = run_job("demo", ["--storage", str(storage), *flags, *MULTI], tmp_path / "log of the second")
    second = Shown(code, text, storage / "demo")
    assert_is_whole(second, "valid", storage / "demo" / "raw" / "ytvos_root", more=["multi"])
    assert second.result == {**first.result, "multi": second.result["multi"]}
    assert made(storage).items() >= before.items()
    assert {name: len(some) for name, some in runs(storage).items()} == {
        name: len(some) + (name in ("finetune", "evaluate")) for name, some in tracked.items()
    }
    assert_was_multi_object(second)


def assert_was_multi_object(demo: Shown) -> None:
    """The second figure is that of a multi-object model, from the pre-training of the first."""
    scores = json.loads((demo.out / "multi" / "valid" / "scores" / "scores.json").read_text())
    assert scores["figures"]["J&F"] == pytest.approx(demo.result["multi"], abs=1e-4)
    config = json.loads((demo.out.parent / "finetune" / "demo-multi" / "config.json").read_text())
    assert (config["multi_object"], config["init"]) == (True, str(demo.out.parent / "pretrain" / "demo"))
    printed = rf"^multi-object, asked together +J .* F .* J&F +{100 * demo.result['multi']:.1f}$"
    assert re.search(printed, demo.text, flags=re.MULTILINE)


@pytest.mark.slow
def test_a_real_dataset_with_a_broken_frame_goes_all_the_way_into_a_bucket_in_a_ray_of_its_own_and_no_secret_does(
    data_kit: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    raw = the_short_ones(data_kit / "refytvos", tmp_path / "raw")
    lacking = spoilt(raw)
    with started_ray() as other:  # the one that Ray would choose for submitted jobs
        own = {"RAY_TMPDIR": other.variables["RAY_TMPDIR"], "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        flags = ["--storage", canary.with_secret(s3_server.uri("my runs")), *LITTLE, "--data", str(raw)]
        s3_server.users()
        code, text = run_job("demo", flags, tmp_path / "log", **own, **canary.VARIABLES)
        assert s3_server.users() == {canary.KEY}, "all processes had the credentials of the flag"
        assert JobSubmissionClient(other.address).list_jobs() == []
        assert not canary.logs_that_hold(Path(own["RAY_TMPDIR"]))
    bucket = Folder(s3_server.uri("my runs/demo"))
    bucket.download(tmp_path / "demo")
    assert canary.CANARY.decode() not in text
    assert not canary.holders(Folder(s3_server.uri("my runs")))
    assert not canary.holders(Folder(str(tmp_path)))
    demo = Shown(code, text, tmp_path / "demo", redacted(canary.with_secret(bucket.uri)))
    assert_is_whole(demo, "train", raw, lacking)
    assert f"left out: 1, listed in {demo.named('prepared/valid/quarantine.jsonl')}" in demo.text
    assert "incomplete: some items were left out" in demo.text


def test_what_a_job_left_out_is_said_and_ends_the_demo_only_where_nothing_may_be_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_submitter, "JOBS", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "quarantine.jsonl").write_text('{"video": "a"}\n{"video": "b"}\n')
    (tmp_path / "some.py").write_text("import sys; print('what it says'); sys.exit(int(sys.argv[1]))")
    beside = _submitter.Submitter()
    beside.submits, beside.address = False, "nowhere"
    for code, allow_incomplete in ((0, False), (3, True)):
        beside.run("some", str(code), allow_incomplete=allow_incomplete, out=str(out))
        said = capsys.readouterr().out
        assert f"left out: 2, listed in {out}/quarantine.jsonl" in said
        assert ("incomplete" in said) == (code == 3)
    for code, allow_incomplete in ((3, False), (1, True)):
        with pytest.raises(JobError, match="some failed"):
            beside.run("some", str(code), allow_incomplete=allow_incomplete, out=str(out))
        assert "what it says" in capsys.readouterr().err
