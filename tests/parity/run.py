"""Runs every case of a pack of golden cases: `python tests/parity/run.py FOLDER [CASE ...]`.

A line a case with its worst error over tolerance, and last `N passed, N failed`; exit code 1 if one failed. The
processor and its kernels, which decide how numbers are rounded, go to stderr.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import block_cases
import loss_cases
import metric_cases
import model_cases
import pack
import post_cases
import processor
import text_cases

KINDS: Mapping[str, Callable] = {
    kind: run
    for module in (block_cases, loss_cases, metric_cases, model_cases, post_cases, text_cases)
    for kind, run in module.CASES.items()
}


def verdict_of(case: pack.Case) -> pack.Verdict:
    """What our modules make of a case, compared.

    Raises:
        ValueError: the kind of the case is not known.
    """
    if case.kind not in KINDS:
        raise ValueError(f"{case.id} is of the unknown kind {case.kind!r}; known are {', '.join(sorted(KINDS))}.")
    return pack.judge(case, KINDS[case.kind](case))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds manifest.json and an npz a case")
    parser.add_argument("cases", nargs="*", help="run only these")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{processor.describe()}, {arguments.threads} threads", file=sys.stderr)
    passed = failed = 0
    for case_id, read in pack.cases(arguments.folder, arguments.cases).items():
        started = time.monotonic()
        try:
            verdict = verdict_of(read())
            ok, words = not verdict.failures, f"{verdict.worst:9.3g} x tolerance in {verdict.output}"
            if verdict.failures[1:]:
                words += f"; {len(verdict.failures)} outputs fail: {', '.join(verdict.failures[:8])}"
        except Exception:  # One broken case must not hide the others; its trace is printed.
            ok, words = False, traceback.format_exc()
        passed, failed = passed + ok, failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {case_id:24} {time.monotonic() - started:6.1f} s {words}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
