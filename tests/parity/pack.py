"""A pack of golden cases: recipes of weights and inputs, reading, comparing. The prose is in the pack's README.

A pack is a folder with `manifest.json` and one npz a case. Weights and most inputs are not stored: both are drawn from
a generator seeded by their name.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

Arrays = dict[str, np.ndarray]
F32 = np.float32


@dataclass(frozen=True)
class Case:
    """One golden case: what goes in, and what the published implementation gave."""

    id: str
    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    tolerances: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @property
    def salt(self) -> str:
        """Set where a case draws other weights than the rest."""
        return self.params.get("salt", "")

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The weight of that published name in the network of this case."""
        return recipe_weight(name, shape, salt=self.salt, refine=self.params.get("refine", True))


@dataclass(frozen=True)
class Verdict:
    """How far the worst output of a case is off, in tolerances, and which outputs fail."""

    case: str
    worst: float
    output: str
    failures: tuple[str, ...]


ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
"""A thinned pack that every clone has."""


def full_pack() -> Path | str:
    """The folder of the full pack (../shared/parity, or what SGMG_PARITY names), or why there is none.

    Raises:
        FileNotFoundError: SGMG_PARITY names a folder that is no pack.
    """
    named = os.environ.get("SGMG_PARITY")
    folder = Path(named) if named else ROOT.parent / "shared" / "parity"
    if (folder / "manifest.json").is_file():
        return folder
    if named:
        raise FileNotFoundError(f"SGMG_PARITY is {named!r}, but {folder / 'manifest.json'} does not exist.")
    return f"no parity pack: {folder / 'manifest.json'} does not exist (SGMG_PARITY can name another folder)"


def recipe_weight(name: str, shape: tuple[int, ...], *, salt: str = "", refine: bool = True) -> np.ndarray:
    """Float weights are a function of their published name; the first rule that fits decides the scale."""
    name = name.removeprefix("transformer.decoder.") if name.startswith("transformer.decoder.bbox_embed.") else name
    if not refine and name.startswith(("bbox_embed.", "class_embed.")):
        head, _, rest = name.split(".", 2)
        name = f"{head}.0.{rest}"
    x = normals(salt + name, shape)
    fan_in = F32(math.prod(shape[1:]))
    if name.endswith("running_var"):
        return F32(1) + F32(0.1) * np.abs(x)
    if name.endswith("relative_position_bias_table"):
        return F32(0.5) * x
    if name.endswith("sampling_offsets.bias"):
        return F32(2) * x
    if name in ("query_embed.weight", "transformer.level_embed"):
        return x
    if x.ndim >= 2 and ".embeddings." in name:
        return F32(0.02) * x
    if name.startswith("controller.layers.2."):
        x = x * F32(0.25 / math.sqrt(fan_in)) if x.ndim == 2 else F32(0.02) * x
        if len(x) == 4416:  # The two inputs in pixels get small weights.
            rows = np.arange(16 * 258)
            x[rows[rows % 258 >= 256]] *= F32(1 / 32)
        return x
    if x.ndim >= 2:
        gain = 4 if name.startswith("input_fft") and name.endswith(".fc.2.weight") else 1
        return x * F32(gain / math.sqrt(fan_in))
    return F32(1) + F32(0.05) * x if name.endswith(".weight") else F32(0.02) * x


def normals(key: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(F32)


def recipe_input(case: str, name: str, spec: Mapping[str, Any]) -> np.ndarray:
    """An input is a function of case and name."""
    rng = np.random.default_rng(zlib.crc32(f"{case}/{name}".encode()))
    shape = tuple(spec["shape"])
    match spec["kind"]:
        case "normal":
            drawn = rng.standard_normal(shape).astype(F32)
            return drawn * F32(spec.get("scale", 1)) + F32(spec.get("shift", 0))
        case "uniform":
            low, high = spec["lo"], spec["hi"]
            return rng.random(shape).astype(F32) * F32(high - low) + F32(low)
        case "frames":
            height, width = shape[-2:]
            cells = rng.standard_normal((*shape[:-2], -(-height // 8), -(-width // 8))).astype(F32)
            noise = rng.standard_normal(shape).astype(F32)
            return cells.repeat(8, axis=-2).repeat(8, axis=-1)[..., :height, :width] + F32(0.25) * noise
        case "frames_uint8":
            t, height, width, _ = shape
            drawn = recipe_input(case, name, {"kind": "frames", "shape": (t, 3, height, width)})
            return np.ascontiguousarray(np.clip(drawn * 60 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
        case kind:
            raise ValueError(f"{case}: input {name!r} has the unknown recipe {kind!r}.")


def cases(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Callable[[], Case]]:
    """The cases of a pack (or those wanted), in its order; each is read when called.

    Raises:
        ValueError: a case that was asked for is not in the pack.
    """
    manifest = json.loads((folder / "manifest.json").read_text())["cases"]
    if unknown := set(wanted) - set(manifest):
        raise ValueError(f"{folder} has no case {', '.join(sorted(unknown))}; it has {', '.join(manifest)}.")
    return {case: partial(read, folder, case, manifest[case]) for case in wanted or manifest}


def read(folder: Path, case: str, meta: Mapping[str, Any]) -> Case:
    with np.load(folder / meta["file"]) as file:
        stored = dict(file)
    inputs = {}
    for name, spec in meta["inputs"].items():
        if spec["kind"] == "stored":
            inputs[name] = stored[f"in/{name}"]
            continue
        inputs[name] = recipe_input(case, name, spec)
        if zlib.crc32(np.ascontiguousarray(inputs[name]).tobytes()) != spec["crc32"]:
            raise ValueError(f"{case}: numpy {np.__version__} draws another {name!r} than the pack was made with.")
    expected = {name.removeprefix("out/"): value for name, value in stored.items() if name.startswith("out/")}
    tolerances = {name: value for name, value in stored.items() if name.startswith("tol/")}
    return Case(case, meta["kind"], meta["params"], inputs, expected, tolerances, meta)


def judge(case: Case, got: Mapping[str, np.ndarray | Tensor]) -> Verdict:
    """Compares every output that the pack judges; one that is missing fails."""
    errors = {}
    for name, spec in case.meta["outputs"].items():
        if spec["class"] != "info":
            errors[name] = _error(case, name, spec, np.asarray(got[name])) if name in got else math.inf
    worst = max(errors, key=lambda name: errors[name])
    return Verdict(case.id, errors[worst], worst, tuple(name for name, error in errors.items() if not error <= 1))


def _error(case: Case, name: str, spec: Mapping[str, Any], got: np.ndarray) -> float:
    """The worst error of an output over its tolerance; at most 1 passes."""
    if list(got.shape) != list(spec["shape"]):
        return math.inf
    want = case.expected[name]
    seen = got.reshape(-1)[:: spec["step"]] if spec["mode"] == "sub" else got
    if spec["class"] == "exact":
        wrong, allowed = int((seen != want).sum()), spec.get("max_mismatch") or 0
        return wrong / allowed if allowed else wrong * math.inf if wrong else 0.0
    seen, want = seen.astype(np.float64), want.astype(np.float64)
    error = np.where(np.isnan(seen) & np.isnan(want), 0, np.abs(seen - want))
    if "tol" in spec:
        return _worst(error / case.tolerances[spec["tol"]])
    worst = _worst(error)
    if spec["mode"] == "sub":
        whole, stats = got.astype(np.float64), spec["stats"]
        worst = max(worst, abs(whole.mean() - stats["mean"]), abs(whole.std() - stats["std"]))
    return worst / spec["atol"]


def _worst(error: np.ndarray) -> float:
    return math.inf if np.isnan(error).any() else float(error.max(initial=0))
