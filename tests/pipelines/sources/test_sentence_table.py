from pathlib import Path

import pytest

from pipelines.errors import LayoutError
from pipelines.files import Folder
from pipelines.sources.labels import LabelledSentence
from pipelines.sources.sentence_table import SentenceTable, rows_of, sentences_of_rows


def table(folder: Path, text: str, least: int = 1) -> SentenceTable:
    (folder / "expressions.csv").write_text(text)
    return SentenceTable(Folder(str(folder)), least)


def test_rows_are_sentences_of_their_videos(tmp_path: Path) -> None:
    found = table(tmp_path, 'video;object_id;expression;text\nb;2;x;"a; b"\na;1;;the cat\nb;1;y;a dog\n').sentences(
        "train"
    )
    assert found == {
        "b": [LabelledSentence("a; b", [2], "x"), LabelledSentence("a dog", [1], "y")],
        "a": [LabelledSentence("the cat", [1])],
    }
    assert sentences_of_rows(rows_of(found["b"])) == found["b"]


def test_the_column_split_chooses_rows(tmp_path: Path) -> None:
    written = table(tmp_path, "video,object_id,text,split\na,1,x,train\na,1,y,valid\n")
    assert written.sentences("valid") == {"a": [LabelledSentence("y", [1])]}
    assert written.objects_of_others("valid") == {"a": frozenset()}
    assert table(tmp_path, "video,object_id,text,split\na,1,x,train\na,2,y,valid\n").objects_of_others("valid") == {
        "a": frozenset({1})
    }
    written = table(tmp_path, "video,object_id,text,split\na,1,x,train\na,1,y,valid\n")
    with pytest.raises(LayoutError, match=r"has no row of split 'test'\. Choose one of train, valid\."):
        written.sentences("test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,object_id,text\n", "has no row below its header"),
        ("video,text\n", "begins with the columns video, text. It needs video, object_id, text"),
        ("video,object_id,text\na,0,x\n", "line 2: object_id '0' is no whole number from 1"),
        ("video,object_id,text\na,one,x\n", "line 2: object_id 'one' is no whole number from 1"),
        ("video,object_id,text\n,1,x\n", "line 2 has no video"),
        (f"video,object_id,text\na,{'9' * 5000},x\n", "line 2: object_id '9{30}' is no whole number from 1"),
        ("video,object_id,text,split\na,1,x,\n", "line 2 has no split"),
        ("video,object_id,text\na,1,x, y\n", "line 2 has 4 fields, not 3"),
    ],
)
def test_a_malformed_table_stops_everything(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"{tmp_path}/expressions.csv.*{message}"):
        table(tmp_path, text).sentences("train")


def test_objects_may_count_from_0(tmp_path: Path) -> None:
    assert table(tmp_path, "video,object_id,text\na,0,x\n", least=0).sentences("any") == {
        "a": [LabelledSentence("x", [0])]
    }
