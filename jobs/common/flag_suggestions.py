"""Suggestions for a wrong flag, by meaning and by spelling."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import get_args, get_type_hints

import tyro

_WRONG_COMMAND_LINE = 2
"""Exit code, as of argparse and tyro."""

_OTHER_NAMES = {
    "actors": ("workers", "num-workers", "replicas", "num-actors", "concurrency"),
    "activation-checkpointing": ("gradient-checkpointing", "checkpointing"),
    "backbone-lr": ("lr-backbone",),
    "checkpoint": ("ckpt", "weights", "model", "model-path", "checkpoint-path", "resume", "init"),
    "checkpoint-every": ("save-every", "save-interval", "save-steps"),
    "clips-per-pass": ("micro-batch", "micro-batch-size", "batch-size-per-gpu", "batch-per-gpu"),
    "cpus-per-worker": ("cpus", "num-cpus"),
    "data": ("dataset", "input", "data-dir", "train-data", "prepared"),
    "epochs": ("num-epochs", "max-epochs"),
    "expressions": ("sentences", "queries", "prompts", "captions"),
    "format": ("type", "benchmark"),
    "formats": ("format", "output-format"),
    "frames": ("num-frames", "clip-length", "clip-len"),
    "freeze-text": ("freeze-text-encoder", "frozen-text"),
    "global-batch": ("batch-size", "batch", "bs", "global-batch-size", "train-batch-size"),
    "gpus-per-actor": ("gpus", "gpu", "num-gpus", "device", "devices", "cuda"),
    "gpus-per-worker": ("gpus", "gpu", "num-gpus", "device", "devices", "cuda"),
    "init": ("checkpoint", "ckpt", "pretrained", "pretrained-weights", "resume", "load-from"),
    "keep": ("save-total-limit", "keep-checkpoints"),
    "licence": ("license",),
    "log-every": ("log-interval", "logging-steps"),
    "lr": ("learning-rate", "rate", "base-lr"),
    "lr-milestones": ("milestones", "drops", "lr-drop", "lr-steps"),
    "max-grad-norm": ("clip-grad", "grad-clip", "gradient-clip", "clip-max-norm", "max-norm"),
    "max-norm": ("clip-grad", "grad-clip", "gradient-clip", "clip-max-norm", "max-grad-norm"),
    "max-steps": ("steps", "num-steps", "iterations", "max-iters"),
    "meta": ("meta-expressions", "annotations", "ground-truth"),
    "min-score": ("threshold", "score-threshold", "confidence"),
    "mlflow-run": ("run-id", "run"),
    "name": ("run-name", "experiment", "experiment-name"),
    "num-cpus": ("cpus", "cores", "num-workers", "workers"),
    "out": ("output", "output-dir", "out-dir", "output-path", "save-dir", "dest", "results"),
    "overlap": ("stride", "window-overlap"),
    "precision": ("dtype", "amp", "fp16", "bf16", "half", "mixed-precision"),
    "predictions": ("pred", "preds", "results", "input"),
    "push-to": ("repo", "repo-id", "hub", "push-to-hub", "upload"),
    "quality": ("jpeg-quality",),
    "raw": ("input", "root", "data", "data-dir", "source"),
    "rows-per-shard": ("shard-size",),
    "schedule": ("scheduler", "lr-scheduler", "lr-schedule"),
    "seed": ("random-seed",),
    "sentences-per-clip": ("sentences", "num-sentences", "expressions-per-clip", "queries"),
    "sentences-together": ("sentences", "sentences-per-clip", "group-size"),
    "short-side": ("size", "resolution", "image-size", "height"),
    "short-sides": ("short-side", "size", "sizes", "resolution", "image-size"),
    "storage": ("output", "output-dir", "out", "out-dir", "runs", "log-dir", "save-dir", "tracking-uri"),
    "text": ("prompt", "query", "sentence", "expression", "caption"),
    "truth": ("gt", "ground-truth", "annotations", "labels", "target"),
    "valid": ("val", "validation", "eval-data", "val-data"),
    "videos": ("video", "input", "source", "files"),
    "window": ("window-size", "chunk-size", "clip-length"),
    "workers": ("num-workers", "nproc", "world-size", "num-processes"),
}
"""Names that other tools give to what our flags set."""


def check_flags(config_type: type, words: Sequence[str]) -> None:
    """Ends the process if a word is a flag that the config does not have; prints the flags that may be meant."""
    hints = get_type_hints(config_type, include_extras=True)
    flags = {field.name.replace("_", "-"): hints[field.name] for field in fields(config_type)}
    known = {"help", *flags, *(f"no-{flag}" for flag, hint in flags.items() if hint is bool)}
    visible = [flag for flag, hint in flags.items() if tyro.conf.Suppress not in get_args(hint)]
    given = [word[2:].partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    wrong = [name for name in given if name and name not in known and not name.startswith("tyro-")]
    for name in wrong:
        choices = " or ".join(f"--{flag}" for flag in suggestions(name, visible))
        hint = f" Did you mean {choices}?" if choices else ""
        print(f"error: There is no flag --{name}.{hint} --help lists all flags.", file=sys.stderr)
    if wrong:
        sys.exit(_WRONG_COMMAND_LINE)


def suggestions(name: str, flags: Iterable[str]) -> list[str]:
    """Returns the flags that a wrong name may mean, best first: of the same meaning, spelt alike, or with it in them.

    >>> suggestions("batch-size", ["global-batch", "seed", "data"])
    ['global-batch']
    >>> suggestions("datset", ["dataset", "out"])
    ['dataset']
    """
    flags = list(flags)
    same_meaning = [flag for flag in flags if name in _OTHER_NAMES.get(flag, ())]
    spelt_alike = get_close_matches(name, flags, n=2, cutoff=0.75)
    containing = [flag for flag in flags if name in flag.split("-")]
    # A misspelt name of another tool.
    other_names = {other: flag for flag in flags for other in _OTHER_NAMES.get(flag, ())}
    nearly = [other_names[other] for other in get_close_matches(name, other_names, n=1, cutoff=0.8)]
    best = same_meaning or spelt_alike or containing or nearly
    return list(dict.fromkeys([*best, *spelt_alike]))[:3]
