"""Whatever is killed in mid-run, the result is that of an undisturbed run: nothing twice, nothing lost."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from annotate_data import moving, write_video
from jobs.annotate import AnnotateConfig, main
from patience import PATIENCE
from pipelines.annotate.settings import WINDOWS_EACH
from pipelines.errors import Exit
from prepared_data import SENTENCES, tiny_checkpoint
from python_path import PYTHONPATH

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
WINDOW, OVERLAP = 6, 1
LONG = 5 * WINDOWS_EACH
"""Windows of the long video: five stretches."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AnnotateConfig:
    folder = tmp_path_factory.mktemp("run")
    frames = LONG * (WINDOW - OVERLAP) + OVERLAP
    write_video(folder / "videos" / "long.mp4", moving(0, frames, 80, 120))
    for number in range(1, 5):
        write_video(folder / "videos" / f"short-{number}.mp4", moving(number, 14, 80, 120))
    (folder / "videos" / "poem.mp4").write_text("Whose woods these are I think I know")
    return AnnotateConfig(
        videos=(str(folder / "videos"),),
        text=SENTENCES[:2],
        checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
        out=str(folder / "out"),
        formats=("parquet", "youtube-vis"),
        short_side=130,
        window=WINDOW,
        overlap=OVERLAP,
        min_score=0.02,
        actors="2:2",
        track=False,
    )


@pytest.fixture(scope="module")
def undisturbed(config: AnnotateConfig, ray_local: None) -> dict[str, bytes]:  # noqa: ARG001
    assert main(config) == Exit.QUARANTINE
    return files_of(Path(config.out))


def files_of(out: Path) -> dict[str, bytes]:
    """All that is the same for the same result."""
    kept = [*(out / "predictions").iterdir(), out / "quarantine.jsonl", out / "youtube_vis.json"]
    return {path.name: path.read_bytes() for path in sorted(kept)}


def stretches_of_long(out: Path) -> set[Path]:
    return set((out / "windows").glob("long-*/*/[!.]*.parquet"))


def flags(config: AnnotateConfig) -> list[str]:
    return [
        *("--videos", *config.videos, "--text", *config.text, "--checkpoint", config.checkpoint, "--out", config.out),
        *("--formats", *config.formats, "--short-side", "130", "--window", str(WINDOW), "--overlap", str(OVERLAP)),
        *("--min-score", "0.02", "--actors", str(config.actors), "--no-track"),
    ]


def test_a_driver_that_is_killed_goes_on_inside_a_long_video(
    config: AnnotateConfig, undisturbed: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, out=str(tmp_path))
    command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), *flags(replace(config, actors="1:1"))]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        driver = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while len(stretches_of_long(tmp_path)) < 2 and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    time.sleep(1)  # Its workers notice that it is gone.
    done = stretches_of_long(tmp_path)
    assert 2 <= len(done) < LONG // WINDOWS_EACH, log.read_text()
    assert not list((tmp_path / "predictions").glob("long-*"))
    log.unlink()
    assert main(config) == Exit.QUARANTINE
    predicted = re.search(r"(\d+) windows, ", capsys.readouterr().out)
    assert predicted
    assert int(predicted[1]) <= LONG + 4 * 3 - len(done) * WINDOWS_EACH
    assert files_of(tmp_path) == undisturbed


def test_nodes_and_workers_that_die_at_random_change_nothing(
    config: AnnotateConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("annotate_on_dying_nodes.py")
    ran = subprocess.run(
        [sys.executable, str(script), str(SEED), *flags(replace(config, out=str(tmp_path), actors="1:3"))],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == Exit.QUARANTINE, ran.stdout + ran.stderr
    killed = re.findall(r"^killed (.*)$", ran.stdout, flags=re.MULTILINE)
    assert killed.count("a node") == 2
    assert {"MapBatches(PredictStage)", "MapBatches(Decode", "MapBatches(Write"} <= set(killed)
    assert files_of(tmp_path) == undisturbed
