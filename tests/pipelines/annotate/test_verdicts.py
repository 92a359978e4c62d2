from pathlib import Path

import pytest

from pipelines.annotate.review import COLUMNS
from pipelines.annotate.verdicts import read_verdicts
from pipelines.errors import LayoutError


def written(folder: Path, text: str) -> str:
    (folder / "v.csv").write_text(text, encoding="utf-8")
    return str(folder / "v.csv")


def test_a_table_of_the_page_and_a_filled_in_review_are_read(tmp_path: Path) -> None:
    page = 'video,expression,text,verdict\na-1,0,"a cat, left",accepted\na-1,1,a dog,to-correct\nb-2,0,a man,rejected\n'
    said = {("a-1", "0"): "accepted", ("a-1", "1"): "to-correct", ("b-2", "0"): "rejected"}
    assert read_verdicts(written(tmp_path, page)) == said
    lines = [",".join(COLUMNS)]
    for rank, ((video, expression), verdict) in enumerate(said.items(), start=1):
        values = {"rank": rank, "video": video, "expression": expression, "verdict": verdict.upper().replace("-", " ")}
        lines.append(",".join(str(values.get(column, "")) for column in COLUMNS))
    lines.append(",".join("c-3" if column == "video" else "0" if column == "expression" else "" for column in COLUMNS))
    assert read_verdicts(written(tmp_path, "\ufeff" + "\r\n".join(lines))) == said, "an empty verdict is none"


def test_a_table_in_another_encoding_is_refused_as_its_ids_would_match_nothing(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes("video,expression,verdict\nStraße,0,rejected\n".encode("cp1252"))
    with pytest.raises(LayoutError, match=r"v.csv, line 2, is no UTF-8. Save it as CSV UTF-8"):
        read_verdicts(str(tmp_path / "v.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "video,verdict\na,accepted\n",
            "v.csv begins with the columns video, verdict. It needs video, expression, verd",
        ),
        (
            "video,expression,verdict\na,0,good\n",
            "line 2: 'good' is no verdict. Choose one of: accepted, rejected, to-c",
        ),
        ("video,expression,verdict\na,0,accepted\na,0,rejected\n", "line 3: a, expression 0, is 'accepted' above"),
        ("video,expression,verdict\na,0\n", "line 2 has 2 fields, not 3"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        read_verdicts(written(tmp_path, text))
