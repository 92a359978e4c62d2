"""The Triton kernels without a GPU: in Triton's interpreter, and compiled for GPUs that are not there.

Each in a process of its own: whether Triton interprets is decided when it is imported.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pack import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not made for this system")

COMPARE = """
import sys, warnings
import torch
from sgmg.deformable_attention import sample_plainly
from sgmg.deformable_triton import sample_triton

warnings.simplefilter("error")
device = torch.device(sys.argv[1])
torch.manual_seed(0)
SHAPES = [(5, 6), (1, 2)]
CELLS = sum(h * w for h, w in SHAPES)


def draws(n=2, queries=35, heads=2, points=3, depth=8, spread=0.3, dtype=torch.float32):
    # locations leave the frame by `spread` on each side; there are more queries than one program takes
    values = torch.randn(n, CELLS, heads, depth, device=device).to(dtype)
    locations = torch.rand(n, queries, heads, len(SHAPES), points, 2, device=device) * (1 + 2 * spread) - spread
    return values, locations, torch.rand(locations.shape[:-1], device=device)


def results(sample, inputs, needs=(True, True, True)):
    values, locations, weights = (x.detach().requires_grad_(need) for x, need in zip(inputs, needs, strict=True))
    out = sample(values, SHAPES, locations, weights)
    up = torch.sin(torch.arange(out.numel(), device=device).view_as(out))
    needed = [x for x in (values, locations, weights) if x.requires_grad]
    return out, *torch.autograd.grad((out.float() * up).sum(), needed)


def assert_equal(inputs, needs=(True, True, True), close=1e-5):
    names = "the output", *(name for name, need in zip(("values", "locations", "weights"), needs) if need)
    found = results(sample_plainly, inputs, needs), results(sample_triton, inputs, needs)
    for name, plain, fused in zip(names, *found, strict=True):
        assert plain.shape == fused.shape, name
        worst = (plain.float() - fused.float()).abs().max() / plain.float().abs().max()
        assert worst < close, (name, inputs[0].dtype, needs, worst)


def test_sizes_and_dtypes():
    for depth, spread, points in (5, 0.3, 3), (8, 2.0, 4), (32, 0.0, 1):
        assert_equal(draws(depth=depth, spread=spread, points=points))
    inputs = draws(dtype=torch.bfloat16)
    assert_equal(inputs, close=1e-2)
    assert sample_triton(inputs[0], SHAPES, *inputs[1:]).dtype == torch.bfloat16


def test_gradients_that_nobody_needs():
    for needs in (True, False, False), (False, True, False), (False, False, True), (False, True, True):
        assert_equal(draws(), needs)


def test_inputs_that_are_not_contiguous():
    assert_equal([x.transpose(1, 2).contiguous().transpose(1, 2) for x in draws()])


def test_autocast_changes_nothing():
    inputs = draws()
    plain = results(sample_triton, inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        cast = results(sample_triton, inputs)
    for x, y in zip(plain, cast, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)  # checks dtypes too


def test_no_query_and_no_frame():
    for n, queries in (2, 0), (0, 5):
        out, *gradients = results(sample_triton, draws(n=n, queries=queries))
        assert out.shape == (n, queries, 16)
        assert not any(x.any() for x in gradients)


def test_a_point_far_outside_reads_nothing_and_learns_nothing():
    far = torch.tensor([-1e30, -1e9, -3.0, 4.0, 1e9, 1e30, float("inf"), float("-inf")], device=device)
    for axis in 0, 1:
        values, locations, weights = draws(queries=len(far))
        locations[..., axis] = far.view(-1, 1, 1, 1)
        assert not any(x.any() for x in results(sample_triton, (values, locations, weights)))


def test_a_location_that_is_no_number_gives_none():
    values, locations, weights = draws(queries=2)
    locations[0, 0, 0, 0, 0, 0] = float("nan")
    out, of_values, of_locations, of_weights = results(sample_triton, (values, locations, weights))
    assert out[0, 0, :8].isnan().all()
    assert out.isnan().sum() == 8
    assert of_values.isfinite().all()
    assert of_weights.isnan().sum() == 1


def test_inputs_that_do_not_fit_are_refused():
    values, locations, weights = draws()
    for error, inputs in (
        (ValueError, (values[:, 1:], locations, weights)),
        (TypeError, (values, locations.bfloat16(), weights)),
        (TypeError, (values.double(), locations, weights)),
    ):
        try:
            sample_triton(inputs[0], SHAPES, *inputs[1:])
        except error:
            continue
        raise AssertionError(error)


for name, test in list(globals().items()):
    if name.startswith("test_"):
        print(name, file=sys.stderr)
        test()
print("equal")
"""

COMPILE = """
import triton
from jaxtyping import install_import_hook
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

with install_import_hook("sgmg", "beartype.beartype"):  # as in tests: it must leave the kernels alone
    from sgmg import deformable_triton as kernels

CONSTANTS = {"K": 8, "D": 32, "L": 4, "P": 4} | kernels.tile_sizes(points=4, depth=32)
TYPES = {"levels": "*i32", "cells": "i32", "queries": "i32"}
for values in "*fp32", "*bf16":
    for kernel in kernels._sum_samples, kernels._add_value_gradient, kernels._write_sample_gradients:
        types = {name: "*fp32" for name in kernel.arg_names} | dict.fromkeys(("values", "out", "up"), values) | TYPES
        signature = {name: "constexpr" if name in CONSTANTS else types[name] for name in kernel.arg_names}
        aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t.startswith("*")}
        for architecture in 80, 90:
            compiled = triton.compile(
                ASTSource(kernel, signature, CONSTANTS, aligned),
                target=GPUTarget("cuda", architecture, 32),
                options=kernels.OPTIONS,
            )
            assert compiled.asm["cubin"]
print("compiled")
"""


def _run(script: str, *arguments: str, **environment: str) -> str:
    """Runs a script in a process of its own; returns what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_the_kernels_give_the_values_and_gradients_of_plain_sampling() -> None:
    assert _run(COMPARE, "cpu", TRITON_INTERPRET="1") == "equal"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_they_do_so_on_a_gpu() -> None:
    assert _run(COMPARE, "cuda", TRITON_INTERPRET="0") == "equal"


def test_the_kernels_compile_for_gpus(tmp_path: Path) -> None:
    assert _run(COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)) == "compiled"
