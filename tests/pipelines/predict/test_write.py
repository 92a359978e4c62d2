"""One whole file a unit, and a note of what failed."""

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED, PREDICTIONS, Failure
from pipelines.inference.unit_messages import predicted_parcel
from pipelines.predict.write import WriteStage
from pipelines.predictions import Prediction, QueryTrack, predictions_table


def a_prediction(video: str) -> Prediction:
    track = QueryTrack(("4",), ((0.0, 0.0, 1.0, 1.0),), (0.5,))
    return Prediction("own", "train", video, "0", "a dog", 2, 2, ("00000",), (track,), 0.5, "f", "made up", "s")


def written(out: Path, predictions: list[Prediction], failures: list[Failure]) -> tuple[bool, bool]:
    """Whether the unit's file, and the note that something failed, are there afterwards."""
    parcel = predicted_parcel("u", failures, predictions, {})
    assert WriteStage(Folder(str(out)))(parcel).column_names == ["unit", "failures", "count"]
    return (out / PREDICTIONS / "u.parquet").is_file(), (out / FAILED / "u.json").is_file()


FAILURE = Failure("cat", "decode", "no image")


def test_a_unit_is_written_whole(tmp_path: Path) -> None:
    assert written(tmp_path, [a_prediction("dog")], []) == (True, False)
    table = pq.read_table(tmp_path / PREDICTIONS / "u.parquet")
    assert table.equals(predictions_table([a_prediction("dog")]))


def test_what_failed_is_noted_beside_what_did_not_and_forgotten_when_it_is_mended(tmp_path: Path) -> None:
    assert written(tmp_path, [], [FAILURE]) == (False, True)
    assert written(tmp_path, [a_prediction("dog")], [FAILURE]) == (True, True)
    assert written(tmp_path, [a_prediction("dog"), a_prediction("cat")], []) == (True, False)
    assert pq.read_table(tmp_path / PREDICTIONS / "u.parquet").num_rows == 2


def test_a_video_without_sentences_is_done_all_the_same(tmp_path: Path) -> None:
    assert written(tmp_path, [], []) == (True, False)
