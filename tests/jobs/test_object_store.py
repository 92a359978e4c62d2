"""Videos and results in an object store: the jobs as people run them, and how often they ask the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from annotate_data import moving, write_video
from pack import ROOT
from patience import PATIENCE
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.prediction_reader import iter_predictions
from prepared_data import SENTENCES, a_record, prepared_folder, tiny_checkpoint
from s3_server import S3Server

pytestmark = pytest.mark.slow

REQUESTS = 20
"""Most requests that a short video may cost, from listing to result."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def run(job: str, *flags: str) -> str:
    """A job of its own, whose workers have the credentials from its environment."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


def test_predictions_of_prepared_data_go_from_bucket_to_bucket(
    s3_server: S3Server, checkpoint: Path, tmp_path: Path
) -> None:
    prepared = prepared_folder(tmp_path / "data", [a_record(f"video-{number}", t=2) for number in range(3)])
    data, out = Folder(s3_server.uri("prepared")), Folder(s3_server.uri("predicted"))
    for path in prepared.iterdir():
        data.write(path.name, path.read_bytes())
    s3_server.busy(3)
    said = run("predict", "--data", data.uri, "--checkpoint", str(checkpoint), "--out", out.uri, "--short-side", "130")
    assert "9 expressions of 3 videos predicted" in said
    assert "3 requests were repeated because the storage was busy" in said
    assert len(list(iter_predictions(out))) == 9
    assert json.loads(out.read("config.json"))["data"] == data.uri
