"""One whole file a unit, and a note of what failed."""

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.inference.messages import PredictionsHeader, decode, encode_context, encode_predictions
from pipelines.inference.quarantine import FAILED
from pipelines.ledger import PREDICTIONS
from pipelines.predict.write import UnitDone, WriteStage
from pipelines.predictions import Prediction, QueryTrack, predictions_table


def a_prediction(video: str) -> Prediction:
    track = QueryTrack(("4",), ((0.0, 0.0, 1.0, 1.0),), (0.5,))
    return Prediction("own", "train", video, "0", "a dog", 2, 2, ("00000",), (track,), 0.5, "f", "made up", "s")


def written(out: Path, predictions: list[Prediction], failures: list[Failure]) -> tuple[bool, bool]:
    """Whether the unit's file, and the note that something failed, are there afterwards."""
    header = PredictionsHeader("u", tuple(failures), (1, 1), {}, 9, 1, 0.25, 1.5, encode_context(None))
    (message,) = WriteStage(Folder(str(out)))(encode_predictions(header, predictions))
    done, payload = decode(message, 0, UnitDone)
    assert done == UnitDone("u", len(failures), 2, 9, len(predictions), 1, 0.25, 1.5)
    assert len(payload) == 0
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
