"""Commands answer at once: what takes seconds to import is imported once the command line is understood."""

import subprocess
import sys

import pytest

from pack import ROOT

JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")
HEAVY = {"torch", "transformers", "mlflow", "ray", "cv2", "scipy"}
PROBE = """
import runpy, sys
job, flag = sys.argv[1:]
sys.argv = [job, flag]
try:
    runpy.run_path(job, run_name="__main__")
except SystemExit as end:
    print("exit code", end.code)
print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--no-such-flag", 2)])
def test_help_and_a_wrong_flag_import_nothing_heavy(job: str, flag: str, code: int) -> None:
    command = [sys.executable, "-c", PROBE, str(ROOT / "jobs" / f"{job}.py"), flag]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    *_, exit_line, imported = ended.stdout.splitlines()
    assert exit_line == f"exit code {code}"
    assert HEAVY.isdisjoint(imported.split())


def test_there_are_jobs_to_check() -> None:
    assert {"prepare", "finetune_ytvos", "annotate"} < set(JOBS)


@pytest.mark.parametrize("module", ["pipelines.training.worker", "jobs.impl.annotate", "jobs.impl.predict"])
def test_who_needs_no_mlflow_does_not_wait_for_it(module: str) -> None:
    """Ranks but the first, and predictors with a checkpoint from a folder: MLflow takes a third of their start."""
    probe = f"import sys, {module}; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", probe]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert {"mlflow", "scipy.optimize"}.isdisjoint(ended.stdout.split())
