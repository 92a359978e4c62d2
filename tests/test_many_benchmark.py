"""The benchmark of many sentences in one pass, run through on a tiny model."""

import subprocess
import sys

from pack import ROOT


def test_all_ways_and_numbers_of_sentences_are_measured() -> None:
    command = [sys.executable, "tests/benchmarks/many.py", "--device", "cpu", "--quick", "--bfloat16", "--threads", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in lines}
    assert all(value > 0 for value in values.values())
    assert {"many_time_8_over_1", "many_fp32_ratio_8", "many_bf16_ratio_8", "many_reference_seconds"} <= set(values)
    ways = {f"many_{way}_{short}_{n}_seconds" for way in ("single", "multi") for short in ("fp32", "bf16")
            for n in (1, 2, 4, 8, 16)}  # fmt: skip
    assert ways <= set(values)
