"""Results of the referring track of VOTS, packed as its toolkit packs them: a text file of masks for each sentence."""

import json
import platform
import sys

from pipelines.exports.submission import name_order, submitted_files
from pipelines.exports.writing import in_order, zip_output
from pipelines.files import Folder
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.predictions import Prediction
from pipelines.sources.vots import decode_region, encode_region
from sgmg.masks import rle_to_mask

TRACKER = "SgMg"
"""Short name of the tracker; the server wants the one that is registered with it."""

STACK = "vots2026/referral"
MANIFEST = "manifest.yml"
_TIME = "1980-01-01T00-00-00.000000"  # always the same, so that the same predictions give the same bytes


def write_vots(predictions: Predictions, out: Folder, name: str, tracker: str = TRACKER) -> int:
    """Writes `baseline/<sequence>/<sequence>_<hash>.txt`, a line for each frame, and returns the number of files.

    Raises:
        ValueError: a file of predictions is damaged.
    """
    count = 0
    with zip_output(out, name) as add:
        for entry, data in in_order(_encoded, predictions):
            add(entry, data)
            count += 1
        add(MANIFEST, _manifest(tracker))
    return count


def check_vots(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads the zip back and checks that it holds exactly the expected files, with a mask or 0 for every frame.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: a file is missing, unexpected or damaged, or has more or fewer lines than the sequence has frames.
    """
    expected = {_path(entry): entry for entry in predictions.entries}
    with submitted_files(out.uri_of(name)) as entries:
        found = [entry for entry, _ in entries]
        if odd := sorted({*found} ^ {*expected, MANIFEST}, key=name_order):
            raise ValueError(f"{out.path(name)} lacks or should not hold {odd[0]}. Write it again.")
        for file, load in entries:
            if file != MANIFEST:
                _check(file, load().decode("ascii", "replace").splitlines(), expected[file])
    return f"{len(expected)} files, each with a line for every frame of its sequence"


def _path(entry: PredictionEntry | Prediction) -> str:
    return f"baseline/{entry.video}/{entry.external_id}.txt"


def _encoded(prediction: Prediction) -> tuple[str, bytes]:
    size = (prediction.height, prediction.width)
    try:
        lines = [encode_region(rle_to_mask(rle, size)) for rle in prediction.queries[0].rle]
    except ValueError as error:
        raise ValueError(f"The prediction of {_path(prediction)} is damaged: {error} Predict it again.") from error
    return _path(prediction), ("\n".join(lines) + "\n").encode()


def _check(file: str, lines: list[str], entry: PredictionEntry) -> None:
    if len(lines) != len(entry.frame_names):
        raise ValueError(f"{file} has {len(lines)} lines for {len(entry.frame_names)} frames. Write it again.")
    for number, line in enumerate(lines, start=1):
        try:
            if line != "0":
                decode_region(line, entry.size)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}. Write it again.") from error


def _manifest(tracker: str) -> bytes:
    """Returns what the toolkit writes of the tracker and the machine, as JSON, which YAML is a superset of."""
    about = {
        "identifier": tracker,
        "configuration": {"label": tracker, "protocol": "trax", "command": "dummy"},
        "timestamp": _TIME,
        "platform": sys.platform,
        "python": platform.python_version(),
        "toolkit": "0.7",
        "stack": STACK,
    }
    return (json.dumps(about, indent=2) + "\n").encode()
