"""Small files that claim gigabytes end in one sentence, in less than 1 GB of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pack import ROOT
from patience import PATIENCE

SAID = {
    "refs": ("LayoutError", "refs.p wants __builtin__.bytearray"),
    "nested_refs": ("LayoutError", "refs.p: refs[0] needs a 'split' (str), but has [["),
    "submission": ("ValueError", "a.zip, Annotations/v/0/00000.png: the file is no image"),
    "mat": ("BadItem", "puppet_mask.mat holds more than 134217728 bytes when it is unpacked"),
    "large_mask": ("ValueError", "13000 x 13000 pixels, more than 67108864 in all"),
    "large_frame": ("ValueError", "13000 x 13000 pixels, more than 67108864 in all"),
    "h5": ("BadItem", "00001.h5 has fields that are no numbers, or of more than 134217728 bytes"),
    "polygon": ("ValueError", "has an outline of more than 1048576 pixels"),
    "deep_json": ("LayoutError", "a.json is no JSON (More than 100 lists or objects in one another"),
    "manifest": ("ValueError", "manifest.json: it is no manifest of prepared data (1099511627776 frames"),
    "config": ("ValueError", "SgMgConfig.decoder_layers=9223372036854775808 must be a whole number from 1 to 64"),
}


def test_what_claims_gigabytes_is_refused_in_a_sentence_and_in_less_than_1_gb(tmp_path: Path) -> None:
    places = [str(ROOT), str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")]
    made = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/memory_bombs.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    found = json.loads(made.stdout)
    assert [name for name, *_ in found] == list(SAID)
    for name, kind, message, peak in found:
        assert (kind, SAID[name][1] in message) == (SAID[name][0], True), f"{name}: {kind}: {message[:500]}"
        assert len(message) < 1000, name
        assert peak < 1000, f"{name}: {peak} MiB"
