"""The formats of annotations, on Ray (`tests/jobs/test_annotate.py` has them all, from videos on)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.annotate import formats as annotate_formats
from pipelines.annotate.formats import Written, impossible, write_formats, write_page
from pipelines.exports.report import write_report
from pipelines.files import Folder
from pipelines.ledger import Entry, Ledger
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from sgmg.masks import masks_to_rles

Writer = Callable[..., Path]
NAMES = ("00000", "00001")


def row(video: str, source: str) -> Prediction:
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[1, 8:20, :32] = True
    track = QueryTrack(tuple(masks_to_rles(masks)), ((0.0, 0.0, 1.0, 1.0),) * 2, (0.5, 0.75))
    return Prediction("videos", "", video, "0", "it", 64, 48, NAMES, (track,), 0.625, "", source, "")


def files_of(out: Folder) -> dict[str, bytes]:
    root = Path(out.path("report"))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_stills_that_many_tasks_draw_are_those_of_one(
    make_video: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate_formats, "_STILLS", 2)
    videos = {
        f"v{number}": make_video(f"{number}.mp4", [np.full((48, 64, 3), 40 * number, np.uint8)] * 2)
        for number in range(5)
    }
    rows = [row(video, str(path)) for video, path in videos.items()]
    alone, spread = Folder(str(tmp_path / "alone")), Folder(str(tmp_path / "spread"))
    for out in (alone, spread):
        out.folder("predictions").make()
        pq.write_table(predictions_table(rows), out.path("predictions/a.parquet"))
    videos["v3"].unlink()  # it has no still, and the others have theirs
    write_report(alone)
    written = [Written(f"stills, {number} of 3 batches") for number in (1, 2, 3)]
    ledger = Ledger("")
    entries = [Entry(one.video, one.source, "", "", (("0", "it"),), groups=1, first_group=0) for one in rows]
    ledger.add("a.parquet", spread.size("predictions/a.parquet"), entries)
    assert list(write_page(spread, ledger)) == [*written, Written("report")]
    assert files_of(spread) == files_of(alone)
    assert sum(name.startswith("thumbs/") for name in files_of(spread)) == 4


def test_a_video_with_more_sentences_than_a_map_has_numbers_is_known_beforehand() -> None:
    sentences = {"/a.mp4": 256, "/b.mp4": 255}
    assert impossible(["png", "davis"], sentences) == {
        "/a.mp4": "has 256 sentences, but a map of davis has 255 numbers"
    }
    assert impossible(["png"], sentences) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_format_that_cannot_be_written_costs_no_other(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    with out.output("predictions/a.parquet") as stream:
        pq.write_table(predictions_table([row("v", "/gone.mp4")]), stream)
    ledger = Ledger("")
    entry = Entry("v", "/gone.mp4", "", "", (("0", "it"),), groups=1, frames=2)
    ledger.add("a.parquet", out.size("predictions/a.parquet"), [entry])
    (tmp_path / "coco.json").mkdir()
    coco, png = write_formats(out, ledger, ["parquet", "coco", "png"], 100)
    assert (coco.what, "coco.json" in coco.error) == ("coco", True)
    assert png == Written("png")
    assert out.has("png.zip")
