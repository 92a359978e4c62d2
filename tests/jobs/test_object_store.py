"""Videos and results in an object store: the jobs as people run them, and how often they ask the store."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import canary
from annotate_data import moving, write_video
from labelled_data import labelled
from pack import ROOT
from patience import PATIENCE
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.prediction_reader import iter_predictions
from pipelines.safety.secrets import redacted
from prepared_data import SENTENCES, prepared_folder, tiny_checkpoint
from python_path import PYTHONPATH
from s3_server import S3Server

pytestmark = pytest.mark.slow

REQUESTS = 20
"""Most requests that a short video may cost, from listing to result."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture
def rays() -> Iterator[Path]:
    """Where the Rays of a test's jobs leave their logs; a short path, as sockets lie there, too."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(job: str, *flags: str, **variables: str) -> str:
    """A job of its own, whose workers have the credentials from its environment, if its flags hold none."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *flags],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == Exit.CLEAN, ran.stdout + ran.stderr
    return ran.stdout


def test_a_short_video_costs_few_requests(s3_server: S3Server, checkpoint: Path, tmp_path: Path) -> None:
    counts = []
    for videos in (2, 10):
        corpus = Folder(s3_server.uri(f"corpus-{videos}"))
        for number in range(videos):
            path = write_video(tmp_path / f"{number}.mp4", moving(number, 6))
            corpus.write(f"a b/{number}.mp4", path.read_bytes())
        out = Folder(s3_server.uri(f"annotated-{videos}"))
        flags = ["--videos", corpus.uri, "--text", SENTENCES[0], "--checkpoint", str(checkpoint), "--out", out.uri]
        flags += ["--short-side", "130", "--min-score", "0", "--actors", "1:1", "--no-track"]
        s3_server.requests()
        said = run("annotate", *flags)
        counts.append(len(s3_server.requests()))
        assert f"{videos} videos annotated" in said
        rows = list(iter_predictions(out))
        assert sorted(row.source for row in rows) == [corpus.uri_of(f"a b/{number}.mp4") for number in range(videos)]
        assert len(out.names("predictions")) == 1
        assert "0 videos annotated" in run("annotate", *flags)
        again = s3_server.requests()
        assert not [one for one in again if ".mp4" in one], "what has not changed is not looked at"
    assert (counts[1] - counts[0]) / 8 <= REQUESTS, counts
    assert not [name for name in out.names() if name in ("windows", "plans", "lease.json")]


def test_predictions_and_scores_of_prepared_data_go_from_bucket_to_bucket_and_their_credentials_nowhere(
    s3_server: S3Server, checkpoint: Path, tmp_path: Path, rays: Path
) -> None:
    prepared = prepared_folder(
        tmp_path / "data", [labelled(f"video-{number}", 2, sentences=SENTENCES) for number in range(3)]
    )
    data, out = Folder(s3_server.uri("prepared")), Folder(s3_server.uri("predicted"))
    for path in prepared.iterdir():
        data.write(path.name, path.read_bytes())
    given, into = canary.with_secret(data.uri), canary.with_secret(out.uri)
    secrets = {"RAY_TMPDIR": str(rays), **canary.VARIABLES}
    s3_server.users()
    s3_server.busy(3)
    flags = ["--checkpoint", str(checkpoint), "--short-side", "130"]
    said = run("predict", "--data", given, "--out", into, *flags, **secrets)
    assert s3_server.users() == {canary.KEY}, "the workers, too, had the credentials of the flags"
    assert "9 expressions of 3 videos predicted" in said
    assert "3 requests were repeated because the storage was busy" in said
    assert len(list(iter_predictions(out))) == 9
    assert json.loads(out.read("config.json"))["data"] == redacted(given)

    runs = tmp_path / "runs"
    scores = canary.with_secret(out.uri_of("scores"), "CANARY2")
    flags = ["--predictions", canary.with_secret(out.uri, "CANARY2"), "--out", scores, "--storage", str(runs)]
    said += run("evaluate", "--truth", canary.with_secret(data.uri, "CANARY2"), *flags, **secrets)
    assert json.loads(out.read("scores/scores.json"))["truth"] == [redacted(given)]
    assert canary.CANARY.decode() not in said
    assert not [path for one in (out, Folder(str(runs))) for path in canary.holders(one)]
    assert not canary.logs_that_hold(rays)


def test_what_is_said_of_annotated_videos_names_their_bucket_without_credentials(
    s3_server: S3Server, checkpoint: Path, tmp_path: Path, rays: Path
) -> None:
    videos, out = Folder(s3_server.uri("films")), Folder(s3_server.uri("annotated-films"))
    videos.write("a.mp4", write_video(tmp_path / "a.mp4", moving(1, 6)).read_bytes())
    videos.write("broken.mp4", b"no video")
    secrets = {"RAY_TMPDIR": str(rays), **canary.VARIABLES}
    formats, said = ["--formats", "youtube-vis", "overlay", "report"], ""
    s3_server.users()
    for secret, count in ((canary.SECRET, 1), ("CANARY2", 0)):  # other credentials are no other video
        pattern = canary.with_secret(videos.uri_of("*.mp4"), secret)
        (tmp_path / "list.txt").write_text(f"{canary.with_secret(videos.uri_of('broken.mp4'), secret)}\n")
        text = run(
            "annotate", "--videos", pattern, str(tmp_path / "list.txt"), "--text", SENTENCES[0], "--checkpoint",
            str(checkpoint), "--out", canary.with_secret(out.uri, secret), "--storage", str(tmp_path / "runs"),
            "--short-side", "130", "--min-score", "0", "--actors", "1:1", "--allow-failures", *formats, **secrets,
        )  # fmt: skip
        assert f"{count} videos annotated" in text
        said += text
    assert s3_server.users() == {canary.KEY}
    (row,) = iter_predictions(out)
    assert row.source == redacted(canary.with_secret(videos.uri_of("a.mp4")))
    assert json.loads(out.read("quarantine.jsonl"))["video"] == row.source.replace("a.mp4", "broken.mp4")
    assert out.has(f"overlay/{row.video}.mp4"), "the video was found again by its name without them"
    assert canary.CANARY.decode() not in said
    assert not [path for one in (out, Folder(str(tmp_path / "runs"))) for path in canary.holders(one)]
    assert not canary.logs_that_hold(rays)
