"""The benchmark of the epoch plan, run through on a third of its data."""

import subprocess
import sys

from pack import ROOT


def test_times_payloads_and_readings_are_measured() -> None:
    command = [sys.executable, "tests/benchmarks/plan.py", "--quick"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    values = {name: float(value) for name, value in (line.split() for line in ended.stdout.splitlines())}
    assert {"plan_seconds", "plan_seconds_from_the_middle"} <= set(values)
    # None of these hangs on the machine, or on how much data there is beyond this.
    assert values["task_payload_kB"] <= values["task_payload_kB_at_most"] < 200
    assert values["min_steps_apart"] >= 32
    readings = [value for name, value in values.items() if name.startswith("read_amplification_refcoco_16_lanes")]
    assert len(readings) == 5
    assert all(1 <= value <= 2 for value in readings)
