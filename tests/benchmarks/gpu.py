"""Checks the numbers of a GPU, then measures it beside the published way of computing (`reference/`), in one command:

    python tests/benchmarks/gpu.py
    python tests/benchmarks/gpu.py --device cpu --quick    # what of it needs no GPU, on tiny sizes, in a minute

It needs a checkout of the repository, torch, transformers, timm, einops, jaxtyping, safetensors, numpy, and what those
bring: tokenizers and huggingface_hub come with transformers, Pillow with timm's torchvision, Triton with torch. sgmg
need not be installed, nor pycocotools, which only scores use. What is missing where there is no network is carried
there as a wheel: `pip download --no-deps`, then `pip install --no-index --target FOLDER`.

Prints `name value` lines. The checks come first; one that fails says so at once, the rest is measured all the same, as
a GPU is seldom at hand, and the exit status is 1. float32 is checked without TF32, against float64 on the CPU: an error
may be `TIMES` that of float32 on the CPU. It is timed with what PyTorch does by default (TF32 in convolutions only).
"""

import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import speed  # the first: it makes the rest importable
import torch
from reference.checks import (
    DEPTH,
    HEADS,
    Check,
    exact_products,
    forward_check,
    gradient_check,
    kernel_checks,
    sampled,
    samples,
)
from reference.measuring import SHORT, in_turns
from speed import Clip, Lines, Setting
from torch import Tensor

from sgmg.deformable_attention import sample_plainly, triton_sampling
from sgmg.objective import Objective
from sgmg.optim import optimizer_for
from sgmg.segmenter import GPU_ROWS
from sgmg.train_step import TrainStep


def checks(setting: Setting) -> Iterator[Check]:
    """Makes the checks that the device can be given, one after the other."""
    with exact_products():
        for preset in dict.fromkeys(("tiny", setting.preset)):
            yield forward_check(preset, 9 if setting.kind == "gpu" else 3, setting.device)
        yield gradient_check(setting.device)
        if setting.kind == "gpu":
            yield from kernel_checks(setting.size, setting.device)
    if setting.kind == "gpu":
        yield from wait_checks(setting)


def wait_checks(setting: Setting) -> Iterator[Check]:
    """Counts how often the host waits for the GPU."""
    one = torch.ones((), device=setting.device)
    yield Check("check_unnoticed_waits", 1 - len(waits(one.item)), 0, "CUDA does not say when the host waits")
    clip = Clip(setting)
    with torch.inference_mode():
        for precision in setting.precisions:
            found = waits(partial(clip.ours, 1, precision))
            yield Check(f"check_{SHORT[precision]}_pass_waits", len(found), 0, f"a pass waits at {', '.join(found)}")
    model, micro_batch = speed.learner(setting)
    for precision in setting.precisions:
        step = TrainStep(Objective(model), optimizer_for(model), device=setting.device, precision=precision)
        found = waits(partial(step, [micro_batch], 0))
        meaning = f"a training step may look at its losses once, and waits at {', '.join(found)}"
        yield Check(f"check_{SHORT[precision]}_step_waits", len(found), 1, meaning)


def waits(run: Callable[[], object]) -> list[str]:
    """Returns the lines at which the host waits for the GPU, in the second run: the first one fills caches."""
    run()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # not "error", which ends at the first
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [
        f"{Path(one.filename).name}:{one.lineno}" for one in caught if "called a synchronizing CUDA" in str(one.message)
    ]


def peaks(setting: Setting, clip: Clip) -> Lines:
    """Measures the peak of the GPU's memory when one sentence is segmented, weights included."""
    runs = {"reference": clip.published} | {SHORT[p]: partial(clip.ours, 1, p) for p in setting.precisions}
    found = {}
    with torch.inference_mode():
        for name, run in runs.items():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            run()
            found[name] = torch.cuda.max_memory_allocated() / 1e9
    reference = found["reference"]
    return {f"gpu_{name}_peak_gb": gigabytes for name, gigabytes in found.items()} | {
        f"gpu_{name}_peak_ratio": gigabytes / reference for name, gigabytes in found.items() if name != "reference"
    }


def kernel(setting: Setting) -> Lines:
    """Measures the Triton kernel beside plain sampling, in bfloat16: in the encoder of a pass, and in training."""
    fused = triton_sampling()
    if fused is None:
        return {}
    lines = {}
    for name, frames, run in (
        ("forward", min(GPU_ROWS, setting.frames), only_sampled),
        ("forward_backward", setting.clip, sampled),
    ):
        given, shapes = samples(frames, setting.size, torch.bfloat16, setting.device)
        up = torch.randn(frames, given[1].shape[1], HEADS * DEPTH, device=setting.device)
        ways = {
            way: partial(run, how, given, shapes, up) for way, how in (("plain", sample_plainly), ("triton", fused))
        }
        taken = {way: statistics.median(runs) for way, runs in in_turns(ways, setting.rounds, setting.device).items()}
        lines |= {f"gpu_sampling_{name}_{way}_ms": took * 1e3 for way, took in taken.items()}
        lines[f"gpu_sampling_{name}_ratio"] = taken["plain"] / taken["triton"]
    return lines


@torch.no_grad()
def only_sampled(
    how: Callable[..., Tensor], given: tuple[Tensor, ...], shapes: list[tuple[int, int]], _: Tensor
) -> Tensor:
    """Returns the samples; arguments as in `sampled`."""
    values, locations, weights = given
    return how(values, shapes, locations, weights)


def main(setting: Setting) -> None:
    print(f"# {setting}", flush=True)
    failures = []
    for check in checks(setting):
        speed.report({f"{setting.kind}_{check.name}": check.found})
        if check.failure:
            print(check.failure, file=sys.stderr, flush=True)
            failures.append(check.failure)
    clip = Clip(setting)
    speed.report(speed.inference(setting, clip))
    if setting.kind == "gpu":
        speed.report(peaks(setting, clip))
        speed.report(kernel(setting))
    del clip
    speed.report(speed.training(setting))
    speed.report(speed.load_and_first_answer(setting))
    if "bfloat16" in setting.precisions:
        speed.report(speed.mask_iou(setting))
    if failures:
        raise SystemExit(" ".join(failures))


if __name__ == "__main__":
    main(speed.parsed(__doc__, frames=36, rounds=10, device="cuda"))
