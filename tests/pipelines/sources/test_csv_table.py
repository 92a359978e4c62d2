import pytest

from pipelines.errors import LayoutError
from pipelines.sources.csv_table import csv_lines, headless_lines

TABLE = 'video,object_id,text\na,1,"a cat, a dog"\nb,2,a man\n'


def rows(text: str, strict: bool = True) -> list[dict[str, str]]:
    lines = list(csv_lines(text, "t.csv", ("video", "object_id", "text"), ("split",), strict=strict))
    assert not any(line.problem for line in lines)
    return [line.values for line in lines]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("video,object_id,text", " Video ,OBJECT_ID,Text"),
        TABLE.replace("\n", ",,\n"),
        TABLE.replace("b,", ",,\n,,,,\n\n , ,\nb,") + ",,\n" * 3,
        TABLE.replace('"a cat, a dog"', "a cat. a dog").replace(",", ";").replace(". ", ", "),
        TABLE.replace('"a cat, a dog"', "a cat. a dog").replace(",", "\t").replace(". ", ", "),
        TABLE.replace("a cat, a dog", "a cat; a dog").replace(",", ";").replace("; ", ", "),
    ],
    ids=["mark", "lines of Windows", "case", "empty columns", "empty rows", "semicolon", "tab", "semicolon, quoted"],
)
def test_a_table_may_come_out_of_any_spreadsheet(text: str) -> None:
    assert rows(text) == [
        {"video": "a", "object_id": "1", "text": "a cat, a dog"},
        {"video": "b", "object_id": "2", "text": "a man"},
    ]


def test_columns_come_in_any_order_and_optional_ones_too() -> None:
    assert rows("split;text;video;object_id\ntrain;a cat;a;1\n") == [
        {"split": "train", "text": "a cat", "video": "a", "object_id": "1"}
    ]


def test_a_line_with_another_number_of_fields_is_a_problem_of_its_own() -> None:
    text = "video,object_id,text\na,1,a cat, left\na,1\nb,2,a man\n"
    short = list(csv_lines(text, "t.csv", ("video", "object_id", "text")))
    assert [(line.number, line.first) for line in short] == [(2, "a"), (3, "a"), (4, "b")]
    assert short[0].problem == "has 4 fields, not 3. Put a text with commas in double quotes."
    assert short[1].problem.startswith("has 2 fields, not 3.")
    assert not short[2].problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv begins with the columns none. It needs video, object_id, text and, if wanted, split, separated by"),
        ("video,text\n", "t.csv begins with the columns video, text. It needs video, object_id, text"),
        ("video,object_id,text,colour\n", "begins with the columns video, object_id, text, colour"),
        ("video,object_id,text,text\n", "begins with the columns video, object_id, text, text"),
        ('video,object_id,text\na,1,"a cat\n', "t.csv, line 2: .*Close every double quote"),
    ],
)
def test_a_header_or_a_quote_that_is_wrong_stops_the_reading(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        rows(text)


def test_loose_quotes_are_read_where_they_are_allowed() -> None:
    assert rows('video,object_id,text\na,1,a "red" cat\n', strict=False)[0]["text"] == 'a "red" cat'


def test_lines_without_header_lose_what_is_empty() -> None:
    assert list(headless_lines("\ufeffa,1,0,,\n,,\n\nb;2;1\nname\n")) == [
        (1, ["a", "1", "0"]), (4, ["b", "2", "1"]), (5, ["name"]),
    ]  # fmt: skip
