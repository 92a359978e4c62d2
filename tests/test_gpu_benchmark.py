"""The benchmark for a GPU, run on the CPU: all of it that needs no GPU, and its checks on numbers that are off."""

import subprocess
import sys
import sysconfig
import warnings
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from reference import checks
from reference.measuring import counted, median_ratio
from torch import Tensor, nn

from pack import ROOT
from sgmg.deformable_attention import sample_plainly

NEEDED = ("torch", "transformers", "timm", "einops", "jaxtyping", "safetensors", "numpy")
HIDE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Only(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target)
        places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
        installed = any(place.startswith({folders!r}) for place in places)
        return None if installed and name.partition(".")[0] not in {known!r} else found

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Only]
"""
"""A `sitecustomize` that finds, of what is installed, only some packages."""
CPU = gpu.Setting(torch.device("cpu"), ("float32",), frames=1, rounds=1).quick()


def brought() -> set[str]:
    """Returns the modules of the packages in `NEEDED`, and of all that those require."""
    known, new = set[str](), [canonicalize_name(name) for name in NEEDED]
    while new:
        name = new.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # triton, say, beside a torch for the CPU
            continue
        known.add(name)
        needed = [Requirement(line) for line in lines]
        names = {canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate()}
        new += names - known
    found = packages_distributions().items()
    return {module for module, packages in found if known & {canonicalize_name(package) for package in packages}}


@pytest.mark.slow
def test_all_but_what_only_a_gpu_has_runs_with_the_packages_of_a_machine_with_a_gpu(tmp_path: Path) -> None:
    folders = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    hide = HIDE.format(folders=folders, known=brought() | {"triton"})
    (tmp_path / "sitecustomize.py").write_text(hide)  # for the processes that it starts, too

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        command = (sys.executable, *command)
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    assert "No module named 'pycocotools'" in run("-c", "import torch, pycocotools").stderr
    ended = run(gpu.__file__, "--device", "cpu", "--quick", "--bfloat16", "--threads", "1")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in lines}
    ratios = {f"cpu_{short}_ratio_{n}" for short in ("fp32", "bf16") for n in (1, 4, 8)}
    assert ratios | {"cpu_fp32_train_ratio", "cpu_bf16_train_ratio", "load_and_first_answer_seconds"} <= set(values)
    assert 0 < values["cpu_check_tiny_forward_error"] < 1e-4
    assert 0 < values["cpu_check_tiny_gradient_error"] < 1e-3
    assert 0.9 < values["bf16_mask_iou"] <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_can_be_run() -> None:
    ended = subprocess.run([sys.executable, gpu.__file__], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 2
    assert "torch finds no GPU on this machine. Give 'cpu'" in ended.stderr


@pytest.mark.parametrize("found", [2e-4, float("nan")])
def test_a_number_that_is_off_is_a_sentence_and_a_status(
    found: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off = checks.Check("check_x", found, 1e-4, "scores are not those of the CPU")
    monkeypatch.setattr(gpu, "checks", lambda _: [off])
    for measure in ("inference", "training", "load_and_first_answer"):
        monkeypatch.setattr(gpu.speed, measure, lambda *_: {"measured": 1})
    with pytest.raises(SystemExit, match=rf"^check_x is {found:.3g}, more than the 0.0001 allowed: scores are not"):
        gpu.main(CPU)
    assert capsys.readouterr().out.count("measured") == 3


@pytest.mark.parametrize(("factor", "failing"), [(1, set()), (1.01, {"fp32"}), (1.1, {"fp32", "bf16"})])
def test_a_kernel_that_samples_otherwise_is_noticed(
    factor: float, failing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(values: Tensor, *others: Any) -> Tensor:
        return sample_plainly(values * factor, *others).to(values.dtype)

    monkeypatch.setattr(checks, "triton_sampling", lambda: kernel)
    found = {check.name: check.failure for check in checks.kernel_checks((40, 64), CPU.device)}
    expected = {f"check_triton_{short}{of}_error" for short in failing for of in ("", "_gradient")}
    assert {name for name, failure in found.items() if failure} == expected
    assert len(found) == 5
    monkeypatch.setattr(checks, "triton_sampling", lambda: None)
    (missing,) = checks.kernel_checks((40, 64), CPU.device)
    assert missing.failure


def test_what_only_a_gpu_has_runs_as_far_as_a_cpu_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("synchronize", "set_sync_debug_mode", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2e9)
    monkeypatch.setattr(gpu, "triton_sampling", lambda: sample_plainly)
    failures = [check.name for check in gpu.wait_checks(CPU) if check.failure]
    assert failures == ["check_unnoticed_waits"]  # since here nothing waits
    assert gpu.peaks(CPU, gpu.Clip(CPU))["gpu_fp32_peak_ratio"] == 1
    assert {"gpu_sampling_forward_ratio", "gpu_sampling_forward_backward_ratio"} <= set(gpu.kernel(CPU))


def test_waits_are_named_by_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("synchronize", "set_sync_debug_mode"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    def run() -> None:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = gpu.waits(run)
    assert found.startswith("test_gpu_benchmark.py:")


def test_products_and_bytes_are_counted() -> None:
    a, b = torch.randn(2, 3), torch.randn(3, 5)
    assert counted(lambda: a @ b, nn.Module()) == (2 * 2 * 3 * 5, 4 * (6 + 15 + 10))
    assert counted(lambda: a.add_(1), nn.Module()) == (0, 4 * (6 + 6))
    assert counted(lambda: a.mT, nn.Module()) == (0, 0)


def test_a_disturbed_round_does_not_count() -> None:
    assert median_ratio([2.0, 9.0, 80.0], [1.0, 3.0, 2.0]) == 3
