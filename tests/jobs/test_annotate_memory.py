"""A long video takes the memory of a short one, in every process of the job, and a small object store is enough."""

import json
import os
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from annotate_data import moving, write_video
from patience import PATIENCE
from pipelines.files import Folder
from pipelines.prediction_reader import iter_predictions
from prepared_data import SENTENCES, tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 24
SHORT, LONG = 10 * WINDOW, 60 * WINDOW
SIZE = (360, 640)
"""Pixels: all frames of the long video are 1 GB, those of a window 17 MB."""
GROWTH, JOINED = 60, 120
"""MiB that a process may differ between two runs; one that joins holds up to a thousand frames' rows, and of the short
video there are only 240."""


def peaks_of(folder: Path, frames: int) -> tuple[Any, int]:
    """MiB by kind of process, and how many frames were annotated."""
    some = list(moving(0, 40, *SIZE))
    every = list(chain.from_iterable(repeat(some, -(-frames // len(some)))))[:frames]
    video = write_video(folder / f"{frames}.mp4", every)
    out = folder / f"out-{frames}"
    flags = ["--videos", str(video), "--text", SENTENCES[0], "--checkpoint", str(folder / "checkpoint")]
    flags += ["--out", str(out), "--short-side", "64", "--window", str(WINDOW), "--no-track", "--min-score", "0.02"]
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("annotate_in_little_memory.py")), *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (row,) = iter_predictions(Folder(str(out)))
    return json.loads(ran.stdout.splitlines()[-1])["peaks"], len(row.frame_names)


@pytest.mark.slow
def test_a_long_video_takes_the_memory_of_a_short_one(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "checkpoint")
    few, frames = peaks_of(tmp_path, SHORT)
    assert frames == SHORT
    many, frames = peaks_of(tmp_path, LONG)
    assert frames == LONG
    assert {
        "driver",
        "MapBatches(Decode",
        "MapBatches(PredictStage)",
        "pipelines.video.decoder_process",
    } <= few.keys() & many.keys()
    grown = {kind: many[kind] - few[kind] for kind in few.keys() & many.keys()}
    joined = grown.pop("join_group", 0)  # which may be over too quickly to be seen
    assert joined < JOINED, (few["join_group"], many["join_group"])
    assert all(growth < GROWTH for growth in grown.values()), grown
