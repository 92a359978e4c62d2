"""Measures writing and reading submissions: PNGs/s and MB/s of zips, beside PNGs as Pillow writes them.

Prints what it measured and asserts nothing. The masks are real shapes where the data kit is there, else discs.
"""

import argparse
import io
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipelines.exports.mask_zip import check_mask_zip, write_mask_zip
from pipelines.exports.submission import read_submission
from pipelines.files import Folder
from pipelines.prediction_reader import iter_predictions, read_predictions
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from sgmg.masks import masks_to_rles, rle_to_mask

SIZES = ((720, 1280), (480, 854))
KIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "vos"


def shapes(count: int, height: int, width: int) -> np.ndarray:
    """Masks (t, h, w), no two alike."""
    paths = sorted(KIT.glob("*/Annotations/*.png"))
    if paths:
        pixels = [np.asarray(Image.open(paths[7 * number % len(paths)])) for number in range(count)]
        masks = [cv2.resize((each > 0).astype(np.float32), (width, height)) > 0.5 for each in pixels]
    else:
        y, x = np.ogrid[:height, :width]
        masks = [
            (y - height / 2) ** 2 + (x - number * width / count) ** 2 < (height / 3) ** 2 for number in range(count)
        ]
    return np.stack(masks)


def save_predictions(folder: Path, videos: int, masks: np.ndarray) -> None:
    folder.mkdir(parents=True)
    t, height, width = masks.shape
    track = QueryTrack(tuple(masks_to_rles(masks)), ((0.0, 0.0, 1.0, 1.0),) * t, (0.5,) * t)
    for number in range(videos):
        said = Prediction(
            dataset="ref-youtube-vos",
            split="valid",
            video=f"{number:05d}",
            expression="0",
            text="it",
            width=width,
            height=height,
            frame_names=tuple(f"{5 * frame:05d}" for frame in range(t)),
            queries=(track,),
            score=0.5,
            fingerprint="",
            source="",
            source_fingerprint="",
        )
        pq.write_table(predictions_table([said]), folder / f"{number:05d}.parquet")


@contextmanager
def timed(what: str, count: int, file: Path) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds, megabytes = time.perf_counter() - started, file.stat().st_size / 1e6
    print(f"  {what:44} {count / seconds:8.0f} PNGs/s {megabytes / seconds:7.2f} MB/s")


def pillow_zip(folder: Folder, path: Path) -> None:
    """What the published code leaves, in one process: Pillow's PNGs, packed into a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for found in iter_predictions(folder):
            for name, rle in zip(found.frame_names, found.queries[0].rle, strict=True):
                stream = io.BytesIO()
                Image.fromarray(rle_to_mask(rle, (found.height, found.width)) * np.uint8(255)).save(stream, "PNG")
                archive.writestr(f"Annotations/{found.video}/{found.expression}/{name}.png", stream.getvalue())


def main(arguments: argparse.Namespace) -> None:
    print(f"{arguments.pngs} PNGs, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    for height, width in SIZES:
        with tempfile.TemporaryDirectory() as name:
            frames = min(40, arguments.pngs)
            videos = -(-arguments.pngs // frames)
            folder, out, count = Folder(name), Folder(name), videos * frames
            save_predictions(Path(name) / "predictions", videos, shapes(frames, height, width))
            predictions, ours, theirs = read_predictions(folder), Path(name) / "a.zip", Path(name) / "b.zip"
            print(f"{width}x{height}")
            with timed("predictions to zip", count, ours):
                write_mask_zip(predictions, out, ours.name)
            with timed("check of that zip, every pixel", count, ours):
                check_mask_zip(predictions, out, ours.name)
            with timed("its masks, read for scoring (one process)", count, ours):
                for _ in read_submission(ours):
                    pass
            with timed("the same with Pillow's PNGs", count, theirs):
                pillow_zip(folder, theirs)
            sizes = [path.stat().st_size for path in (ours, theirs)]
            print(f"  bytes a PNG, all counted: {sizes[0] / count:.0f}, Pillow's {sizes[1] / count:.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pngs", type=int, default=2000)
    main(parser.parse_args())
