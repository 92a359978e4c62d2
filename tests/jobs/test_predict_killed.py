"""Whatever is killed in mid-run, the predictions are those of an undisturbed run: nothing twice, nothing lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.predict import PredictConfig, main
from patience import PATIENCE
from pipelines.errors import Exit
from pipelines.ledger import PREDICTIONS
from pipelines.records import Record
from prepared_data import a_record, png, prepared_folder, tiny_checkpoint
from python_path import PYTHONPATH
from ray_workers import kill_worker_at

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = 8

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]


def large_frames(record: Record) -> Record:
    """Frames that take long to decode, of masks that do not."""
    shape = (len(record.frames), 150, 200, 3)
    cells = np.random.default_rng(sum(record.video.encode())).integers(0, 256, shape, dtype=np.uint8)
    frames = cells.repeat(8, axis=1).repeat(8, axis=2)
    return replace(record, frames=tuple(png(frame) for frame in frames), height=1200, width=1600)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PredictConfig:
    folder = tmp_path_factory.mktemp("run")
    records = [large_frames(a_record(f"video-{number}", sentences=("the ball",))) for number in range(VIDEOS)]
    data = prepared_folder(folder / "data", records, rows_per_group=1)
    checkpoint = tiny_checkpoint(folder / "checkpoint")
    return PredictConfig(str(data), str(checkpoint), str(folder / "out"), short_side=130, actors="2:2")


@pytest.fixture(scope="module")
def undisturbed(config: PredictConfig, ray_local: None) -> dict[str, bytes]:  # noqa: ARG001
    assert main(config) == Exit.CLEAN
    return files_of(Path(config.out))


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / PREDICTIONS).iterdir())}


def whole_files(out: Path) -> int:
    return len(list((out / PREDICTIONS).glob("[!.]*.parquet")))


def kill_once(title: str, when: Callable[[], bool]) -> tuple[threading.Thread, list[str]]:
    """Kills, from a thread, the first worker of our Ray that does what its title says, once it is time."""
    killed: list[str] = []

    def watch() -> None:
        end = time.monotonic() + PATIENCE
        while not killed and time.monotonic() < end:
            if when() and kill_worker_at(title):
                killed.append(title)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread, killed


@pytest.mark.parametrize("title", ["MapBatches(PredictStage)", "MapBatches(Decode"])
def test_a_worker_that_is_killed_changes_nothing(
    config: PredictConfig, undisturbed: dict[str, bytes], tmp_path: Path, title: str
) -> None:
    thread, killed = kill_once(title, when=lambda: title.endswith("Decode") or whole_files(tmp_path) > 0)
    assert main(replace(config, out=str(tmp_path))) == Exit.CLEAN
    thread.join()
    assert killed
    assert files_of(tmp_path) == undisturbed


def test_a_driver_that_is_killed_goes_on_where_it_was(
    config: PredictConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    flags = ["--data", config.data, "--checkpoint", config.checkpoint, "--out", str(tmp_path), "--short-side", "130"]
    command = [sys.executable, str(ROOT / "jobs" / "predict.py"), *flags, "--actors", "1:1"]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        driver = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while not whole_files(tmp_path) > 0 and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = whole_files(tmp_path)
    assert 0 < done < VIDEOS, log.read_text()
    assert main(replace(config, out=str(tmp_path))) == Exit.CLEAN
    assert files_of(tmp_path) == undisturbed


def test_a_node_that_is_lost_changes_nothing(
    config: PredictConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("predict_on_dying_node.py")
    ran = subprocess.run(
        [sys.executable, str(script), config.data, config.checkpoint, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "killed a node" in ran.stdout
    assert files_of(tmp_path) == undisturbed
