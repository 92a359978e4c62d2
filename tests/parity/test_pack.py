"""Every golden case, of the thinned pack in tests/golden and of the full one where it is there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import processor
import run
from pack import GOLDEN, ROOT, cases, full_pack

PACK = full_pack()
HEAVY = pytest.mark.xdist_group("model")
"""On one worker, so that models are built once."""


def _parameters() -> list:
    golden = [pytest.param(GOLDEN, case, id=f"golden-{case}", marks=HEAVY) for case in cases(GOLDEN)]
    if isinstance(PACK, str):
        return [*golden, pytest.param(GOLDEN, "", id="full", marks=pytest.mark.skip(reason=PACK))]
    full = [pytest.param(PACK, case, id=case, marks=HEAVY) for case in cases(PACK)]
    # What the full pack judges in full need not be judged thinned.
    return full + [parameter for parameter in golden if parameter.values[1] not in cases(PACK)]


@pytest.mark.parametrize(("folder", "case"), _parameters())
def test_our_numbers_are_the_published_ones(folder: Path, case: str) -> None:
    verdict = run.verdict_of(cases(folder)[case]())
    assert not verdict.failures, f"{verdict.output} is off by {verdict.worst:.3g} x tolerance"


def test_the_thinned_pack_stays_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 1_000_000


def test_the_runner_counts_and_fails_when_a_number_is_wrong(tmp_path: Path) -> None:
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    manifest["cases"] = {name: manifest["cases"][name] for name in ("pos2d_b", "mso_odd")}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(GOLDEN / "pos2d_b.npz", tmp_path)
    with np.load(GOLDEN / "mso_odd.npz") as file:
        arrays = dict(file)
    arrays["out/out"][7] += 2 * manifest["cases"]["mso_odd"]["outputs"]["out"]["atol"]
    np.savez(tmp_path / "mso_odd.npz", allow_pickle=False, **arrays)

    command = [sys.executable, str(ROOT / "tests/parity/run.py"), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)

    assert finished.stderr.startswith(processor.describe())
    *lines, last = finished.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", "pos2d_b"], ["FAIL", "mso_odd"]], finished.stdout
    assert last == "1 passed, 1 failed"
    assert finished.returncode == 1


def test_a_missing_output_fails() -> None:
    case = cases(GOLDEN)["mso_odd"]()
    assert run.pack.judge(case, {}).failures == ("out", "pixel_shuffled")
