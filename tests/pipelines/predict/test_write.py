"""One whole file a unit, and a note of what failed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.inference.answers import Answer, Compressed, Masks
from pipelines.inference.messages import AnswersHeader, decode, encode_answers, encode_context
from pipelines.inference.quarantine import FAILED
from pipelines.ledger import PREDICTIONS
from pipelines.predict.write import UnitDone, WriteStage
from pipelines.predictions import Prediction, QueryTrack, prediction_of
from pipelines.records import Expression, Record
from sgmg.masks import masks_to_bits

RIGHT = np.array([[[False, True], [False, True]]])
MAP = np.array([[[0, 2], [0, 2]]], dtype=np.uint8)


def a_record(video: str) -> Record:
    sentence = Expression("0", "a dog", annotator=1)
    return Record("own", "train", video, 4, 4, ("00000",), (b"",), (), (sentence,), "made up", "s", 2, 2)


def an_answer(score: float = 0.5) -> Answer:
    masks = Masks((2, 2), (Compressed.of(masks_to_bits(RIGHT[None])),))
    return Answer(0, (0,), masks, ((score,),), (((0.0, 0.0, 1.0, 1.0),),), note="slow", merged=(Compressed.of(MAP),))


def written(out: Path, videos: list[str], failures: list[Failure]) -> tuple[bool, bool]:
    """Whether the unit's file, and the note that something failed, are there afterwards."""
    records = (a_record("dog"), a_record("cat"))
    header = AnswersHeader("u", tuple(failures), records, {}, "f", 1, 0.25, 1.5, encode_context(3))
    answers = [[an_answer()] if record.video in videos else [] for record in records]
    (message,) = WriteStage(Folder(str(out)))(encode_answers(header, answers))
    done, payload = decode(message, 0, UnitDone)
    assert done == UnitDone("u", len(failures), 2, 2, len(videos), 1, 0.25, 1.5, retries=3)
    assert len(payload) == 0
    return (out / PREDICTIONS / "u.parquet").is_file(), (out / FAILED / "u.json").is_file()


FAILURE = Failure("cat", "decode", "no image")


def test_a_unit_is_written_whole(tmp_path: Path) -> None:
    assert written(tmp_path, ["dog"], []) == (True, False)
    (row,) = pq.read_table(tmp_path / PREDICTIONS / "u.parquet").to_pylist()
    found = prediction_of(row)
    assert [object_map(png).tolist() for png in found.merged or ()] == MAP.tolist()
    track = QueryTrack(("22",), ((0.0, 0.0, 1.0, 1.0),), (0.5,))
    assert replace(found, merged=None) == Prediction(
        "own", "train", "dog", "0", "a dog", 2, 2, ("00000",), (track,), 0.5, "f", "made up", "s",
        annotator=1, note="slow",
    )  # fmt: skip


def test_what_failed_is_noted_beside_what_did_not_and_forgotten_when_it_is_mended(tmp_path: Path) -> None:
    assert written(tmp_path, [], [FAILURE]) == (False, True)
    assert written(tmp_path, ["dog"], [FAILURE]) == (True, True)
    assert written(tmp_path, ["dog", "cat"], []) == (True, False)
    assert pq.read_table(tmp_path / PREDICTIONS / "u.parquet").num_rows == 2


def test_a_video_without_sentences_is_done_all_the_same(tmp_path: Path) -> None:
    assert written(tmp_path, [], []) == (True, False)
