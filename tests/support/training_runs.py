"""Training jobs as people start them, on a small made-up dataset; and what they leave behind, to be compared."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
import torch
from safetensors.torch import load_file
from torch import Tensor

from pack import ROOT
from patience import PATIENCE
from pipelines.files import Folder
from pipelines.manifest import Manifest
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.sources.catalog import entry_of
from pipelines.sources.synthetic import SyntheticConfig, SyntheticPaths, write_synthetic
from python_path import PYTHONPATH

SMALL = SyntheticConfig(
    train_images=12, val_images=1, train_videos=4, valid_videos=1, test_videos=1,
    fewest_frames=6, most_frames=6, width=128, height=96,
)  # fmt: skip
PRETRAIN, FINETUNE, A2D = "pretrain_refcoco", "finetune_ytvos", "finetune_a2d"
EXPERIMENTS = {PRETRAIN: "pretrain", FINETUNE: "finetune", A2D: "a2d"}
LAST = 14
"""Steps of these runs: past the end of the first epoch of a job on images or on videos."""


def prepared(dataset: str, raw: Path, split: str, out: Path, rows_per_shard: int = 4) -> Manifest:
    """What jobs/prepare.py would leave in `out`, without a Ray."""
    source = entry_of(dataset).open(Folder(str(raw)), split)
    folder = Folder(str(out)).make()
    plans = plan_shards(source, {}, rows_per_shard)
    for plan in plans:
        ShardWriter(source, folder, None, 95).write(plan)
    return finish(plans, source, folder, {})


@dataclass(frozen=True)
class MadeUp:
    """Prepared folders of the made-up images and videos, and where they came from."""

    images: Path
    videos: Path
    raw: SyntheticPaths


def made_up(folder: Path) -> MadeUp:
    """The small dataset, prepared; in a second."""
    raw = write_synthetic(folder / "raw", SMALL)
    prepared("refcoco", raw.refcoco, "train", folder / "images")
    prepared("ref-youtube-vos", raw.ytvos, "train", folder / "videos", rows_per_shard=1)
    return MadeUp(folder / "images", folder / "videos", raw)


def flags_of(data: Path, storage: Path | str, name: str, *more: str) -> list[str]:
    """Of a small run of two workers on the CPU, with a checkpoint every fourth step."""
    values = {
        "data": data, "storage": storage, "name": name, "recipe": "tiny", "workers": 2, "cpus-per-worker": 0.5,
        "threads": 1, "short-sides": 96, "global-batch": 4, "clips-per-pass": 2, "sentences-per-clip": 1, "epochs": 3,
        "max-steps": LAST, "checkpoint-every": 4, "keep": 20, "log-every": 2, "shuffle-window": 4,
    }  # fmt: skip
    return [word for flag, value in values.items() for word in (f"--{flag}", str(value))] + ["--log-samples", *more]


def environment() -> dict[str, str]:
    """Of a job: no Ray and no MLflow but its own, and no more threads or patience than it needs."""
    unset = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH, "RAY_worker_niceness": "0"}
    return variables | ours | {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(PATIENCE)}


class Job:
    """A job in a process of its own; whatever is left of it and its Ray when the block ends is killed."""

    def __init__(
        self, job: str, flags: list[str], log: Path, program: list[str] | None = None, **variables: str
    ) -> None:
        """`program` stands in for `python jobs/<job>.py`; `variables` are added to its environment."""
        self.log = log
        command = program or [sys.executable, str(ROOT / "jobs" / f"{job}.py")]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*command, *flags],
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=environment() | variables,
            )
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.children()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        alive = psutil.wait_procs(list(self._seen.values()), timeout=3)[1]
        for process in alive:
            process.kill()
        if error is not None:
            error.add_note(f"the log of the job:\n{self.text[-6000:]}")

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Everything it has started that is alive."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {process.pid: process for process in children}
        return children

    def workers(self) -> list[psutil.Process]:
        """The training workers of its Ray, in no order."""
        return [process for process in self.children() if _title(process).startswith("ray::RayTrainWorker")]

    def wait_until(self, there: Callable[[], bool], pause: float = 0.02) -> None:
        """Waits for something that the running job does."""
        end = time.monotonic() + PATIENCE
        while not there():
            assert self.poll() is None, "the job ended before"
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(pause)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(PATIENCE)

    def kill_driver(self) -> None:
        """SIGKILL, as the kernel sends it when memory is short; its Ray goes with it, two agents linger."""
        working = [process for process in self.children() if "Agent" not in _title(process)]
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(working, timeout=PATIENCE)
        assert not alive, alive


class JobServer:
    """A process with a Ray of its own that runs training jobs one after another: job_server.py, started when needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, job: str, flags: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a job; returns the process that runs it."""
        if self._process is None or self._process.poll() is not None:
            with log.open("ab") as stream:
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("job_server.py"))],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream,
                    bufsize=0, start_new_session=True, env=environment(),
                )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"job": job, "flags": flags, "log": str(log)}).encode() + b"\n")
        return self._process

    def close(self) -> None:
        """Ends the process and its Ray."""
        if self._process is None:
            return
        process, self._process = self._process, None
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        for child in psutil.wait_procs(children, timeout=3)[1]:
            child.kill()


class ServedJob(Job):
    """A job that a JobServer runs: for tests that kill neither its driver nor its Ray."""

    def __init__(self, server: JobServer, job: str, flags: list[str], log: Path) -> None:
        self.log = log
        log.touch()
        self.process = server.start(job, flags, log)
        self._server = server
        self._code: int | None = None
        self._seen = {}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.poll() is None:
            self.process.kill()
            self._server.close()
        if error is not None:
            error.add_note(f"the log of the job:\n{self.text[-6000:]}")

    def poll(self) -> int | None:
        if self._code is None:
            assert self.process.stdout is not None
            if select.select([self.process.stdout], [], [], 0)[0]:
                self._code = int(self.process.stdout.readline() or "-1")
        return self._code

    def end(self) -> int:
        end = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            assert time.monotonic() < end, "it did not end"
            time.sleep(0.05)
        return code


def run_served(server: JobServer, job: str, flags: list[str], log: Path) -> tuple[int, str]:
    """A whole job, run by a JobServer: its exit code and its log."""
    with ServedJob(server, job, flags, log) as running:
        code = running.end()
        return code, running.text


def run_job(job: str, flags: list[str], log: Path, **variables: str) -> tuple[int, str]:
    """A whole job: its exit code and its log. `variables` are added to its environment."""
    with Job(job, flags, log, None, **variables) as running:
        code = running.end()
        return code, running.text


def run_of(job: str, storage: Path, name: str) -> Path:
    """Where the run of a name lies."""
    return storage / EXPERIMENTS[job] / name


def checkpoints(run: Path) -> list[int]:
    """The steps of the whole checkpoints that lie there."""
    return sorted(int(path.parent.name.removeprefix("step_")) for path in run.glob("step_*/training.pt"))


def samples(run: Path, first: int = 0) -> dict[tuple[int, int], str]:
    """The sample of each step and lane, from a step on, as the workers wrote them down.

    Written twice, after a restart, it must be the same.
    """
    by_lane: dict[tuple[int, int], str] = {}
    for path in sorted((run / "samples").glob("*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            key = (line["step"], line["lane"])
            assert by_lane.setdefault(key, line["sample"]) == line["sample"], key
    return {key: sample for key, sample in by_lane.items() if key[0] >= first}


def weights(run: Path, step: int = LAST) -> dict[str, Tensor]:
    """Of the model after a step."""
    return load_file(run / f"step_{step:08d}" / "model.safetensors")


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((weight - other[name]).abs().max()) for name, weight in one.items())


def moments(run: Path, step: int = LAST) -> list[Tensor]:
    """What AdamW remembers after a step."""
    state = torch.load(run / f"step_{step:08d}" / "training.pt")["optimizer"]["state"]
    return [state[number][name] for number in sorted(state) for name in ("exp_avg", "exp_avg_sq")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
