"""No damage of a file that people hand over ends a job in another way than it promises."""

import os
import random
import time
from pathlib import Path

import pytest

from mutated_readers import KINDS
from mutations import mutated
from pipelines.errors import BadItem, DamagedFile, JobError, LayoutError

OURS = (BadItem, DamagedFile, JobError, LayoutError)
PLAIN = (ValueError, FileNotFoundError)
ROUNDS = int(os.environ.get("SGMG_MUTATIONS", "1"))
"""How many times as many damaged files to read as CI does."""
LONGEST, MOST_MIB = 10, 700
"""Seconds of processor time that reading one damaged file may take, and memory that reading all of a kind may add."""


def fault_of(error: Exception, file: Path) -> str:
    """What is wrong with the way in which a reader refuses a file; empty if nothing is.

    It may raise one of our own errors. It may also raise a ValueError or FileNotFoundError, but exactly of these types,
    as their subclasses are raised by libraries, and only with the name of the file, or of the folder that it makes up,
    in the message.
    """
    said = str(error)
    if not isinstance(error, OURS):
        if type(error) not in PLAIN:
            return f"raises {type(error).__module__}.{type(error).__name__}: {said[:300]}"
        if file.name not in said and str(file.parent) not in said:
            return f"does not name the file: {said[:300]}"
    if len(said) > 3000:
        return f"says too much: {said[:300]}"
    return "" if "exit code" not in said else f"lets the decoder process fail: {said[:300]}"


def held_mib(name: str) -> int:
    """What Linux tells of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:"))
    return value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("default")  # of libraries about what they read
@pytest.mark.usefixtures("as_users_run_it")
def test_a_damaged_file_is_read_or_quarantined_or_refused_in_words(name: str, tmp_path: Path) -> None:
    kind, root = KINDS[name], tmp_path / "all-q7x"  # no message says that by chance
    root.mkdir()
    kind.make(root)
    assert not kind.read(root), "whole files are read as a whole"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory that this process ever held
    before = held_mib("VmHWM")
    faults: list[str] = []
    for seed in range(kind.runs * ROUNDS):
        rng = random.Random(f"{name} {seed}")
        file = files[seed % len(files)]
        whole = file.read_bytes()
        file.write_bytes(mutated(file.name, whole, rng))
        if name == "videos":
            (root / "changed").write_text(file.relative_to(root).as_posix())
        began, fault = time.process_time(), ""
        try:
            fault = next((f"lets the decoder fail: {one}" for one in kind.read(root) if "exit code" in one), "")
        except Exception as error:
            fault = fault_of(error, file)
        finally:
            file.write_bytes(whole)
        if (took := time.process_time() - began) > LONGEST:
            fault = fault or f"takes {took:.0f} s"
        faults += [f"seed {seed}, {file.relative_to(root)}: {fault}"] if fault else []
    assert not faults, "\n".join(faults[:20])
    assert held_mib("VmHWM") - before < MOST_MIB
