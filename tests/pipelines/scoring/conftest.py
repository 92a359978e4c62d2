"""What tests of scores share: real data prepared without Ray, and predictions made of what is known to be true."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.scoring.rows import write_parquet
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.catalog import entry_of

Prepare = Callable[[str, str, str], Path]
Perfect = Callable[[VideoTruth], list[Prediction]]
Written = Callable[[Sequence[Prediction]], str]


@pytest.fixture
def prepare(data_kit: Path, tmp_path: Path) -> Prepare:
    """(folder of the kit, dataset, split) → folder of prepared Parquet."""

    def prepared(raw: str, dataset: str, split: str) -> Path:
        out = Folder(str(tmp_path / f"{dataset}-{split}")).make()
        source = entry_of(dataset).open(Folder(str(data_kit / raw)), split)
        plans = plan_shards(source, {}, 2)
        writer = ShardWriter(source, out)
        for plan in plans:
            writer.write(plan)
        finish(plans, source, out, {})
        return Path(out.path())

    return prepared


@pytest.fixture
def perfect() -> Perfect:
    """Truth → predictions of exactly that."""

    def predictions(truth: VideoTruth) -> list[Prediction]:
        return [_prediction(truth, number) for number in range(len(truth.labelled_expressions))]

    return predictions


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Predictions → folder of a run that made them, a file a video."""

    def folder(predictions: Sequence[Prediction]) -> str:
        run = Folder(str(tmp_path / "run")).make()
        for video in {one.video for one in predictions}:
            table = predictions_table([one for one in predictions if one.video == video])
            write_parquet(run, f"predictions/{video}.parquet", table)
        return run.path()

    return folder


def _prediction(truth: VideoTruth, number: int) -> Prediction:
    expression = truth.labelled_expressions[number]
    height, width = truth.size
    frames = truth.scored_frames(expression)
    rles = tuple(truth.rle(expression, frame) or "" for frame in frames)
    tracks = [truth.objects[one] for one in expression.targets]
    boxes = tuple((tracks[0].boxes[frame] if tracks[0].boxes else None) or (0.0, 0.0, 0.0, 0.0) for frame in frames)
    return Prediction(
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression.id,
        text=expression.text,
        width=width,
        height=height,
        frame_names=tuple(truth.frame_names[frame] for frame in frames),
        queries=(QueryTrack(rles, boxes, (1.0,) * len(frames)),),
        score=1.0,
        fingerprint="test",
        source="test",
        source_fingerprint="test",
        external_id=expression.external_id,
        annotator=expression.annotator,
    )
