"""All videos of the data kit, good and bad, in one run: nothing is lost, and times are those of the probe."""

import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.annotate import AnnotateConfig, main
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.manifest import QUARANTINE
from pipelines.prediction_reader import iter_predictions
from pipelines.predictions import Prediction
from prepared_data import SENTENCES, tiny_checkpoint

FPS = 4.0
BAD = {
    "constructed__audio_only_from_nasa.m4a": "sound, but no moving picture",
    "constructed__text_not_video.mp4": "no video, or cut short",
    "constructed__truncated_no_moov.mp4": "no video, or cut short",
    "constructed__zero_bytes.mp4": "the file is empty",
    "mp4parse__afconvert-aac-0.5s.mp4": "sound, but no moving picture",
    "mp4parse__chunk_out_of_range.mp4": "no video, or cut short",
}
PARTIAL = {
    "constructed__truncated_mdat.mp4": "the file ends after 13 of 24 frames",
    "decord__corrupted.mp4": "damaged or gone",
}
TWO_STREAMS = "torchcodec__nasa_13013.mp4"  # the probe saw the smaller one
IMAGES = "constructed__lossless_rgb_frames"
PROBE_OF_IMAGES: dict[str, Any] = {
    "size": "214x120", "sar": "None", "vfr": False, "pts0": 0, "frames_decoded_pyav": 6, "avg_fps": "24",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(data_kit: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("corpus")
    kit = data_kit / "videos"
    config = AnnotateConfig(
        # A folder means what looks like a video; what does not is named.
        videos=(str(kit), str(kit / "constructed__audio_only_from_nasa.m4a"), str(kit / IMAGES)),
        text=SENTENCES[:1],
        checkpoint=str(tiny_checkpoint(folder / "checkpoint")),
        out=str(folder / "out"),
        fps=FPS,
        min_score=0.02,
        short_side=64,
        track=False,
    )
    assert main(config) == Exit.QUARANTINE
    return folder / "out"


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Prediction]:
    rows = list(iter_predictions(Folder(str(run))))
    assert len({row.video for row in rows}) == len(rows)
    return {Path(row.source).name: row for row in rows}


@pytest.fixture(scope="module")
def probes(data_kit: Path) -> dict[str, dict[str, Any]]:
    return {probe["file"]: probe for probe in json.loads((data_kit / "videos" / "probe.json").read_text())}


@pytest.mark.slow
def test_every_video_is_in_the_result_or_in_quarantine(
    run: Path, found: dict[str, Prediction], probes: dict[str, dict[str, Any]]
) -> None:
    lines = [json.loads(line) for line in (run / QUARANTINE).read_text().splitlines()]
    said = {Path(line["video"]).name: line for line in lines}
    assert said.keys() == BAD.keys()
    assert all(reason in said[name]["reason"] for name, reason in BAD.items())
    assert {line["stage"] for line in lines} == {"decode"}
    assert found.keys() | said.keys() == {*probes, IMAGES}
    assert Counter(row.status == "partial" for row in found.values())[True] == len(PARTIAL)
    for name, note in PARTIAL.items():
        assert (found[name].status, note in found[name].note) == ("partial", True)
    assert not (run / "windows").exists()  # no video of the kit is long


@pytest.mark.slow
def test_sizes_counts_and_times_are_those_of_the_probe(
    found: dict[str, Prediction], probes: dict[str, dict[str, Any]]
) -> None:
    for name, row in found.items():
        times = np.array(row.timestamps)
        assert len(times) == len(row.frame_names) == len(row.queries[0].rle)
        untimed = name == IMAGES  # nothing tells when these were taken, so that all are used
        assert untimed or (np.diff(np.floor((times + 0.001) * FPS)) >= 1).all(), name
        probe = PROBE_OF_IMAGES if name == IMAGES else probes[name]
        if name == TWO_STREAMS:
            probe = {**probe, "size": "480x270", "frames_decoded_pyav": 390, "avg_fps": "30000/1001"}
        width, height = (int(side) for side in probe["size"].split("x"))
        aspect = Fraction(probe["sar"]) if probe["sar"] != "None" else Fraction(1)
        shown = (max(width, round(width * aspect)), height) if aspect >= 1 else (width, round(height / aspect))
        turned = probe.get("rotation_pyav", [0])[0] % 180 == 90
        assert (row.width, row.height) == (shown[::-1] if turned else shown), name
        rate = float(Fraction(probe["avg_fps"]))
        assert times[0] == pytest.approx(float(probe["pts0"] * Fraction(probe.get("tb", "1"))), abs=1e-6), name
        if not probe["vfr"] and name not in PARTIAL:
            # Of even frames those are taken that are the first of their quarter of a second.
            every = times[0] + np.arange(probe["frames_decoded_pyav"]) / rate
            steps = np.floor((every + 0.001) * FPS)
            wanted = every if untimed else every[np.diff(steps, prepend=-math.inf) > 0]
            assert times == pytest.approx(wanted, abs=0.002), name
        assert [int(one) for one in row.frame_names] == sorted({int(one) for one in row.frame_names})


@pytest.mark.slow
def test_a_variable_frame_rate_keeps_its_times(data_kit: Path, found: dict[str, Prediction]) -> None:
    known = json.loads((data_kit / "videos/constructed__vfr_known_pts.json").read_text())["pts_ms"]
    row = found["constructed__vfr_known_pts.mp4"]
    assert row.timestamps == pytest.approx([known[int(name)] / 1000 for name in row.frame_names])
    assert len(row.frame_names) == len({math.floor((stamp / 1000 + 0.001) * FPS) for stamp in known})
