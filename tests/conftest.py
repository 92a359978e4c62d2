"""What every test shares: the folder of golden numbers, and draws and threads that do not depend on the machine."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# The tests build every weight and tokenizer they need; offline, a stray look at the hub fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests read what the workers of a job log. Of lines that differ in numbers only, Ray prints the first, and the others
# once a worker logs something 5 s later: perhaps never.
os.environ["RAY_DEDUP_LOGS"] = "0"

import jaxtyping
import pytest
import torch

import processor
import rounding
from pack import ROOT, full_pack
from python_path import FORKED_WORKERS

if TYPE_CHECKING:
    from s3_server import S3Server
    from served import Served
    from training_runs import JobServer


# The workers of any Ray that a test starts are forked, but where a test measures their memory.
os.environ["PYTHONPATH"] = os.pathsep.join([*FORKED_WORKERS, *filter(None, [os.environ.get("PYTHONPATH")])])
LATE = "out of time: this machine is too slow for all of them, see .ci/run"


def pytest_configure() -> None:
    """Shares the cores between the test processes: two pools of threads on the same cores slow each other down.

    A shell starts what runs in its background deaf to Ctrl-C, and so would be the jobs that tests start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--begin-until", type=float, metavar="SECONDS", help="since 1970: tests that would begin later are skipped"
    )


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names files that tests are given after their parameter: what is in them may differ from process to process.

    Those of MATLAB say when they were made; two test processes must collect tests of the same names.
    """
    return argname if isinstance(val, bytes) and len(val) > 60 else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that would begin after --begin-until."""
    until = item.config.getoption("begin_until")
    if until is not None and time.time() > until:
        pytest.skip(LATE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that --begin-until has skipped; pytest itself counts them."""
    late = [one.nodeid for one in terminalreporter.getreports("skipped") if LATE in str(one.longrepr)]
    if late:
        terminalreporter.section(f"{len(late)} tests had no time to begin")
        terminalreporter.write_line("\n".join(late))


def pytest_report_header() -> str:
    return f"{processor.describe()}, {torch.get_num_threads()} threads of torch in this process"


@pytest.fixture(autouse=True)
def _same_draws_in_every_order() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _freed_memory_goes_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """A step of a published model leaves 4 GB of freed blocks with the C library: Ray would count them, and kill."""
    yield
    if request.node.get_closest_marker("slow") and sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """The test, and the fixtures it takes that are made for it alone, compute in float64."""
    with rounding.in_float64():
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The test computes with one thread, as Ray's workers of one core do: then nothing is rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Without the tests' shape checks, which otherwise speak before our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.hookimpl(tryfirst=True)  # before xdist's own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs the slow tests of a file, which share what takes longest to make."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A small local Ray: four logical cores on whatever there is, so that a pipeline fits beside two workers."""
    import ray  # here: most tests need no Ray, and its import takes a second

    from pipelines.session import start_local

    start_local(4, object_store_memory=512 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def job_server() -> Iterator["JobServer"]:
    """What runs the training jobs that are not killed: one process and one Ray for all of them."""
    from training_runs import JobServer  # here: most tests train nothing

    server = JobServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """A service that no test kills."""
    from served import serving  # here: most tests ask no service

    with serving(tmp_path_factory.mktemp("served"), "--live", "--requests-per-minute", "100000") as one:
        yield one


@pytest.fixture(scope="session")
def s3_server() -> Iterator["S3Server"]:
    """An S3 server of this machine with one bucket; the environment has its credentials."""
    from s3_server import CREDENTIALS, S3Server  # here: most tests need no store

    with S3Server.start() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def parity_pack() -> Path:
    """The folder of golden numbers of the published implementation; SGMG_PARITY names another one.

    Skips where it is not there: a clone has only the figures in tests/golden.
    """
    found = full_pack()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def data_kit() -> Path:
    """The folder of real samples of every raw layout; skips where it is not there."""
    folder = (ROOT.parent / "shared" / "data").resolve()  # it may be linked; jobs name folders as they are
    if not (folder / "MANIFEST.csv").is_file():
        pytest.skip(f"no data kit: {folder / 'MANIFEST.csv'} does not exist")
    return folder


@pytest.fixture(scope="session")
def case_kit() -> Path:
    """The folder of small inputs that failed once; skips where it is not there."""
    folder = (ROOT.parent / "shared" / "cases").resolve()
    if not (folder / "thumb_first.mp4").is_file():
        pytest.skip(f"no cases: {folder / 'thumb_first.mp4'} does not exist")
    return folder
