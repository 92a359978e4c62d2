"""Makes this folder's pack from the full one: a case of every kind, outputs thinned to a few numbers.

`python tests/golden/make.py ../shared/parity` writes manifest.json and the npz files beside it. The result is a pack
of the same form: `python tests/parity/run.py tests/golden` runs it.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
KEPT = 250
"""Numbers kept of an output that has more."""
CASES = (
    "pos2d_b", "pos1d_a", "lfm_chain", "lfm_grad_a", "fusion_a", "msdeform_2d_mask", "msdeform_4d_mask", "enc_layer_a",
    "dec_layer_4d", "transformer_norefine", "mso_odd", "dynmask_a", "matcher_d", "criterion_b", "boxops_a", "nested_a",
    "backbone_vst_t9", "backbone_swin_t", "backbone_resnet50", "text_a", "e2e_vst_ytvos_odd", "train_vst",
    "maskmetrics_a", "davis_jf_void", "dbstats_a", "davis_eval_b", "refexp_a", "post_ytvos_q5", "post_davis_one",
    "preproc_up",
)  # fmt: skip


def thinned(spec: dict, values: np.ndarray) -> tuple[dict, np.ndarray]:
    """Every n-th number of an output; the mean and deviation of the whole are judged as before."""
    if spec["class"] != "close" or "tol" in spec or values.size <= KEPT:
        return spec, values
    step = -(-values.size // KEPT)
    while np.gcd(step, int(np.prod(spec["shape"]))) > 1:
        step += 1
    if spec["mode"] == "sub":
        return {**spec, "step": spec["step"] * step}, values[::step]
    return {**spec, "mode": "sub", "step": step}, values.reshape(-1)[::step]


def main(source: Path) -> None:
    full = json.loads((source / "manifest.json").read_text())
    cases = {}
    for name in CASES:
        meta = full["cases"][name]
        with np.load(source / meta["file"]) as file:
            arrays = {key: file[key] for key in file.files if not key.startswith("out/")}
            outputs = {}
            for output, spec in meta["outputs"].items():
                outputs[output], arrays[f"out/{output}"] = thinned(spec, file[f"out/{output}"])
        np.savez_compressed(HERE / f"{name}.npz", allow_pickle=False, **arrays)
        notes = {key: value for key, value in meta["notes"].items() if key not in ("rle", "no_grad")}
        cases[name] = {**meta, "file": f"{name}.npz", "outputs": outputs, "notes": notes}
        del cases[name]["bytes"]
    manifest = {"versions": full["versions"], "tolerance": full["tolerance"], "cases": cases}
    (HERE / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
