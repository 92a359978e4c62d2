"""What decides how numbers are rounded: the processor, and the kernels that torch, oneDNN and MKL take for it."""

import os
import platform
from pathlib import Path

import torch

FLAGS = ("avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16")
CAPS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def describe() -> str:
    """Returns the name of the processor, the kernels that torch takes, and what caps those of the libraries."""
    capabilities = torch.cpu.get_capabilities()
    parts = [
        f"processor: {_name()}",
        f"torch kernels: {torch.backends.cpu.get_cpu_capability()}",
        f"it has: {' '.join(flag for flag in FLAGS if capabilities.get(flag)) or 'none of ' + ' '.join(FLAGS)}",
        *(f"{name}={os.environ[name]}" for name in CAPS if name in os.environ),
    ]
    return ", ".join(parts)


def _name() -> str:
    """Returns the name of the processor's model."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
