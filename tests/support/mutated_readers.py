"""Small whole files of every kind that is read, and for each kind the reader that jobs call."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from labelled_data import SIZE, labelled
from odd_clips import picture, write_as
from pipelines.annotate.expressions_file import read_expressions
from pipelines.annotate.verdicts import read_verdicts
from pipelines.clips.sample_reader import RowGroup
from pipelines.config_io import CONFIG, require_same_settings
from pipelines.errors import LayoutError
from pipelines.exports.meta import read_expected
from pipelines.exports.pngs import encode_mask, encode_object_map
from pipelines.exports.submission import read_submission
from pipelines.exports.writing import zip_output
from pipelines.files import Folder
from pipelines.ledger import Entry, Ledger, add_footer, read_ledger
from pipelines.manifest import read_manifest, read_rows
from pipelines.prediction_reader import iter_predictions
from pipelines.predictions import PREDICTION_SCHEMA, Prediction, QueryTrack, predictions_table
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter, read_footer
from pipelines.scoring.coco_files import coco_rows, read_json
from pipelines.scoring.prediction_source import open_submission
from pipelines.scoring.score import score_video, scoring_protocol
from pipelines.scoring.truth import truth_of
from pipelines.scoring.truth_parts import truth_parts
from pipelines.sources.catalog import entry_of
from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import Video
from pipelines.video.segments import segments
from sgmg.checkpoints import load, save
from sgmg.config import SgMgConfig, SwinConfig, TextConfig
from sgmg.masks import mask_to_rle, rle_to_coco
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer
from sgmg.weights import read_torch_file
from small_layouts import LAYOUTS, frame, write, ytvos

MASK = np.zeros(SIZE, dtype=np.bool_)
MASK[:, : SIZE[1] // 2] = True


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        make: writes whole ones into a folder.
        read: reads all in a folder as a job does; returns why things were quarantined.
        runs: how many damaged copies are read in CI.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], list[str]]
    runs: int


def _prepare(dataset: str, split: str) -> Callable[[Path], list[str]]:
    """Reads a raw layout as jobs/prepare.py does, without Ray."""

    def read(root: Path) -> list[str]:
        out = Folder(f"{root}-out").make()
        try:
            source = entry_of(dataset).open(Folder(str(next(root.glob("*.zip"), root))), split)
            plans = plan_shards(source, {}, 4)
            footers = [ShardWriter(source, out).write(plan) for plan in plans]
            finish(plans, source, out, {})
        finally:
            shutil.rmtree(out.path())
        return [one["reason"] for footer in footers for one in footer.quarantined]

    return read


def _make_prepared(root: Path) -> None:
    ytvos(root / "raw")
    source, out = entry_of("ref-youtube-vos").open(Folder(str(root / "raw")), "train"), Folder(str(root))
    plans = plan_shards(source, {}, 4)
    for plan in plans:
        ShardWriter(source, out).write(plan)
    finish(plans, source, out, {"short_side": None})
    shutil.rmtree(root / "raw")


def _read_prepared(root: Path) -> list[str]:
    folder = Folder(str(root))
    manifest = read_manifest(folder)
    assert manifest.usable <= manifest.counts["expressions"]
    for shard in manifest.shards:
        read_footer(folder, shard.file)
        for number in range(len(shard.row_groups)):
            assert read_rows(folder, shard.file, number)
            group = RowGroup.read(folder, shard.file, number)
            assert [group.frame(0, place) for place in range(group.frame_count(0))]
    for part in truth_parts(str(root)):
        for truth in part.read():
            score_video(truth, [], scoring_protocol("ref-youtube-vos"), missing_as_empty=True)
    return []


def _a_prediction(video: str, expression: str) -> Prediction:
    track = QueryTrack((mask_to_rle(MASK),) * 2, ((0.0, 0.0, 1.0, 1.0),) * 2, (0.5,) * 2)
    names = ("00000", "00005")
    values = {"dataset": "own", "split": "val", "text": "it", "fingerprint": "f", "source": "", "score": 0.5}
    size = {"width": SIZE[1], "height": SIZE[0]}
    return Prediction(
        video=video,
        expression=expression,
        frame_names=names,
        queries=(track,),
        source_fingerprint="",
        **values,  # pyright: ignore[reportArgumentType]
        **size,
    )


def _make_predictions(root: Path, with_ledger: bool = False) -> None:
    (root / "predictions").mkdir()
    entries = [Entry(video, f"/{video}.mp4", "1", "f", (("0", "it"),), place, 1) for place, video in enumerate("ab")]
    with pq.ParquetWriter(root / "predictions/x.parquet", PREDICTION_SCHEMA, write_page_checksum=True) as writer:
        for video in "ab":
            writer.write_table(predictions_table([_a_prediction(video, "0")]))
        add_footer(writer, entries)
    if with_ledger:
        ledger = Ledger("settings")
        ledger.add("x.parquet", (root / "predictions/x.parquet").stat().st_size, entries)
        ledger.write(Folder(str(root)))
        write(root / CONFIG, {"made_by": {"checkpoint": "x", "window": 36}})


def _read_predictions(root: Path) -> list[str]:
    assert list(iter_predictions(Folder(str(root))))
    return []


def _read_annotation(root: Path) -> list[str]:
    out, results = Folder(str(root)), sorted((root / "predictions").iterdir())
    kept = [(path, path.read_bytes()) for path in results]
    try:
        require_same_settings(out, {"checkpoint": "x", "window": 36}, "made_by")
        return [] if read_ledger(out, "settings").rows else ["nothing is known"]
    finally:
        for path, data in kept:  # a damaged result is deleted
            path.write_bytes(data)


def _make_sentences(root: Path) -> None:
    write(root / "a.csv", "video,expression,id\na.mp4,the red one,x\nb.mp4,the dog,\n")
    write(root / "a.jsonl", b'{"video": "a.mp4", "expression": "the red one"}\n{"video": "b", "expression": "it"}\n')
    write(root / "a.txt", "the red one\nthe dog\n")


def _read_sentences(root: Path) -> list[str]:
    videos = [Video("/videos/a.mp4"), Video("/videos/b.mp4")]
    return [
        str(one)
        for name in ("csv", "jsonl", "txt")
        for one in read_expressions(str(root / f"a.{name}"), videos).problems
    ]


def _make_verdicts(root: Path) -> None:
    write(root / "page.csv", 'video,expression,text,verdict\nv,0,"it, left",accepted\nv,1,a dog,to-correct\n')


def _read_verdicts(root: Path) -> list[str]:
    read_verdicts(str(root / "page.csv"))
    return []


def _make_submissions(root: Path) -> None:
    with zip_output(Folder(str(root)), "tracks.zip") as add:
        for name in ("00000", "00005"):
            add(f"Annotations/v/0/{name}.png", encode_mask(MASK))
    with zip_output(Folder(str(root)), "maps.zip") as add:
        for number in range(2):
            add(f"anno_0/v/{number:05d}.png", encode_object_map(MASK.astype(np.uint8)))


def _read_submissions(root: Path) -> list[str]:
    for name, davis in (("tracks.zip", False), ("maps.zip", True)):
        truth = truth_of(labelled("v", 2, dataset="ref-davis17" if davis else "ref-youtube-vos"))
        found = open_submission(str(root / name), davis).read([truth])
        score_video(truth, found, scoring_protocol(truth.dataset), missing_as_empty=True)
    assert list(read_submission(root / "tracks.zip")) is not None
    return []


def _make_coco(root: Path) -> None:
    mask = rle_to_coco(mask_to_rle(MASK), SIZE)
    image = {"id": 1, "height": SIZE[0], "width": SIZE[1], "caption": "it"}
    truth = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": mask,
        "area": 5.0,
        "bbox": [0, 0, 5, 5],
        "iscrowd": 0,
    }
    result = {"image_id": 1, "category_id": 1, "segmentation": mask, "score": 0.5, "bbox": [0, 0, 5, 5]}
    write(root / "truth.json", {"images": [image], "annotations": [truth], "categories": [{"id": 1, "name": "x"}]})
    write(root / "results.json", [result, result])


def _read_coco(root: Path) -> list[str]:
    truth, results = root / "truth.json", root / "results.json"
    try:
        coco_rows(read_json(str(truth)), read_json(str(results)))
    except ValueError as error:  # as jobs/evaluate.py does
        raise LayoutError(f"{results} against {truth}: {error}") if type(error) is ValueError else error from error
    return []


def _make_meta(root: Path) -> None:
    ytvos(root)
    write(root / "val.json", {"images": [{"id": 1, "height": 5, "width": 5}]})


def _read_meta(root: Path) -> list[str]:
    read_expected(str(root), "ref-youtube-vos", "train")
    read_expected(str(root / "val.json"), "refcoco", "val")
    return []


def _make_checkpoint(root: Path) -> None:
    text = TextConfig(vocabulary=300, width=16, layers=1, heads=2, ffn=32, max_tokens=40)
    backbone = SwinConfig(8, (1, 1, 1, 1), (1, 2, 4, 8), video=True, window=(8, 7, 7))
    model = SgMg(replace(SgMgConfig.preset("tiny"), backbone=backbone, text=text, width=32, ffn=32))
    save(root / "checkpoint", model, tokenizer=Tokenizer.train(["a dog", "a cat"]), notes={"a": [1]})


def _read_checkpoint(root: Path) -> list[str]:
    load(root / "checkpoint")
    return []


def _make_torch_files(root: Path) -> None:
    torch.save({"model": {"a.weight": torch.ones(4, 4)}, "epoch": 3, "lr": [0.1]}, root / "published.pth")
    torch.save([torch.ones(3)], root / "old.pt", _use_new_zipfile_serialization=False)


def _read_torch_files(root: Path) -> list[str]:
    assert [read_torch_file(path, "its owners") for path in sorted(root.iterdir())]
    return []


def _make_videos(root: Path) -> None:
    frames = [picture(64, 48, seed) for seed in range(3)]
    write_as(root / "a.mp4", frames, "mp4", "libx264")
    write_as(root / "b.mkv", frames, "matroska", "mpeg4")
    write_as(root / "c.avi", frames, "avi", "mjpeg", "yuvj420p")
    for seed, kind in enumerate(("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")):
        write(root / f"images/{seed}.{kind.lower()}", frame(seed, kind))


_DECODER = VideoDecoder(time_limit=20)


def _read_videos(root: Path) -> list[str]:
    """Reads the one video that was damaged: the others are whole, and take time."""
    changed = (root / "changed").read_text().split("/")[0] if (root / "changed").exists() else ""
    for name in [changed] if changed else ["a.mp4", "b.mkv", "c.avi", "images"]:
        video = Video(str(root / name), images=name == "images")
        timeline = _DECODER.timeline(video)
        windows = chain.from_iterable(_DECODER.windows(one) for one in segments(video, timeline, overlap=0))
        assert sum(len(window.frames) for window in windows) <= 50
    return []


KINDS: dict[str, Kind] = {
    **{name: Kind(make, _prepare(dataset, split), 25) for name, (dataset, split, make) in LAYOUTS.items()},
    "prepared": Kind(_make_prepared, _read_prepared, 60),
    "predictions": Kind(_make_predictions, _read_predictions, 60),
    "annotation": Kind(lambda root: _make_predictions(root, with_ledger=True), _read_annotation, 60),
    "verdicts": Kind(_make_verdicts, _read_verdicts, 60),
    "sentences": Kind(_make_sentences, _read_sentences, 100),
    "submissions": Kind(_make_submissions, _read_submissions, 60),
    "coco": Kind(_make_coco, _read_coco, 100),
    "meta": Kind(_make_meta, _read_meta, 60),
    "checkpoint": Kind(_make_checkpoint, _read_checkpoint, 9),
    "torch files": Kind(_make_torch_files, _read_torch_files, 50),
    "videos": Kind(_make_videos, _read_videos, 25),
}
