"""Tables of sentences, good rows and bad."""

import json
from pathlib import Path

import pytest

from pipelines.annotate.expressions_file import read_expressions
from pipelines.errors import LayoutError
from pipelines.records import Expression
from pipelines.video.listing import Video

SWAN = Video("/data/a/swan.mp4")
TWINS = (Video("/data/a/cow.mp4"), Video("/data/b/cow.mp4"))
VIDEOS = (SWAN, *TWINS, Video("s3://bucket/Café, 1.mp4"), Video("/data/seq.1", images=True))


def _write(folder: Path, text: str | bytes, name: str = "e.csv") -> str:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / name)


def _reasons(path: str) -> list[str]:
    return [problem.reason for problem in read_expressions(path, VIDEOS).problems]


def test_a_table_gives_each_video_its_sentences(tmp_path: Path) -> None:
    rows = ["Video, expression ,id", 'swan.mp4,"the swan, left",s1', "", "swan,  a   duck ,", "a/cow.mp4,the cow,1"]
    text = "\ufeff" + "\r\n".join(rows)
    found = read_expressions(_write(tmp_path, text), VIDEOS)
    assert not found.problems
    first, second = found.by_video[SWAN.path]
    assert first == Expression("s1", "the swan, left")
    assert second.text == "a duck"
    assert len(second.id) == 8
    assert found.by_video[TWINS[0].path] == (Expression("1", "the cow"),)
    assert found.by_video[TWINS[1].path] == ()


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("/data/a/swan.mp4", SWAN),
        ("swan", SWAN),
        ("./a/swan.mp4", SWAN),
        (SWAN.id, SWAN),
        ("b/cow", TWINS[1]),
        ("Cafe\u0301, 1.mp4", VIDEOS[3]),
        ("s3://bucket/Café, 1.mp4", VIDEOS[3]),
        ("seq.1", VIDEOS[4]),
    ],
)
def test_a_video_may_be_named_in_several_ways(tmp_path: Path, name: str, video: Video) -> None:
    path = _write(tmp_path, json.dumps({"video": name, "expression": "x", "id": 7}) + "\n", "e.jsonl")
    assert read_expressions(path, VIDEOS).by_video[video.path] == (Expression("7", "x"),)


def test_a_list_goes_for_every_video(tmp_path: Path) -> None:
    found = read_expressions(_write(tmp_path, "\ufeffthe dog\r\n\n the cat \n", "e.txt"), VIDEOS)
    assert [tuple(one.text for one in found.by_video[video.path]) for video in VIDEOS] == [("the dog", "the cat")] * 5
    assert not found.problems


def test_the_id_of_a_sentence_stays_when_rows_come_before_it(tmp_path: Path) -> None:
    before = read_expressions(_write(tmp_path, "video,expression\nswan,a\n"), VIDEOS).by_video[SWAN.path]
    after = read_expressions(_write(tmp_path, "video,expression\nswan,b\nswan,a\n"), VIDEOS).by_video[SWAN.path]
    assert after[1] == before[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("dog.mp4,x,", "e.csv, line 2: the name matches none of the videos"),
        ("cow.mp4,x,", "the name matches 2 videos (/data/a/cow.mp4, /data/b/cow.mp4)"),
        ("swan,   ,", "the expression is empty"),
        (f"swan,{'dog ' * 500},", "1999 characters, up to 2001 tokens; the text encoder takes 512"),
        ("swan,x,../up", "cannot be a file name"),
        ("swan,x,-a", "cannot be a file name"),
        ("swan,a,b,c", "e.csv, line 2 has 4 fields, not 3. Put a text with commas in double quotes"),
        (",x,", "the name matches none of the videos"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_problem_and_the_rest_goes_on(tmp_path: Path, row: str, reason: str) -> None:
    found = read_expressions(_write(tmp_path, f"video,expression,id\n{row}\nswan,good,\n"), VIDEOS)
    (problem,) = found.problems
    assert reason in problem.reason
    assert problem.stage == "list"
    assert [one.text for one in found.by_video[SWAN.path]] == ["good"]


def test_a_spreadsheet_in_another_dialect_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path, "\ufeffVideo;Expression;;\nswan;the dog, left;;\n;;;\n;;;\n")
    found = read_expressions(path, VIDEOS)
    assert [one.text for one in found.by_video[SWAN.path]] == ["the dog, left"]
    assert not found.problems


def test_a_second_row_of_the_same_text_or_id_is_left_out(tmp_path: Path) -> None:
    text = "video,expression,id\nswan,x,1\nswan, x ,2\nswan,y,1\na/cow,x,1\n"
    assert ["twice" in reason for reason in _reasons(_write(tmp_path, text))] == [True, True]


def test_a_tokenizer_decides_on_what_may_be_too_long(tmp_path: Path) -> None:
    path = _write(tmp_path, f"video,expression\nswan,{'dog ' * 300}\nswan,{'é' * 600}\n")
    found = read_expressions(path, VIDEOS, tokens=lambda text: 2 + len(text.split()) * (600 if "é" in text else 1))
    assert [one.text[:3] for one in found.by_video[SWAN.path]] == ["dog"]
    assert "600 characters, up to 602 tokens" in found.problems[0].reason


def test_a_row_in_latin_1_is_a_problem_that_shows_how_it_would_read(tmp_path: Path) -> None:
    for name, text in {
        "e.csv": b"video,expression\nswan,caf\xe9\nswan,good\n",
        "e.jsonl": b'{"video": "swan", "expression": "caf\xe9"}\n{"video": "swan", "expression": "good"}\n',
    }.items():
        found = read_expressions(_write(tmp_path, text, name), VIDEOS)
        assert [one.text for one in found.by_video[SWAN.path]] == ["good"]
        assert "not UTF-8" in found.problems[0].reason
        assert "café" in found.problems[0].reason
    found = read_expressions(_write(tmp_path, b"caf\xe9\ngood\n", "e.txt"), VIDEOS)
    assert len(found.problems) == 1
    assert all(len(sentences) == 1 for sentences in found.by_video.values())


@pytest.mark.parametrize(
    "line",
    [
        '{"video": "swan"',
        '["swan", "x"]',
        '{"video": "swan", "text": "x"}',
        '{"video": "swan", "expression": 3}',
        '{"video": "swan", "expression": "\\ud800"}',
    ],
)
def test_a_line_that_is_no_row_is_a_problem(tmp_path: Path, line: str) -> None:
    assert len(_reasons(_write(tmp_path, line + "\n", "e.jsonl"))) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.csv", b"video|expression\n", "needs video, expression"),
        ("e.csv", b"", "needs video, expression"),
        ("e.csv", b"video,expression,txt\n", "video, expression, txt"),
        ("e.csv", b'video,expression\nswan,"open\n', "Close every double quote"),
        ("e.csv", "video,expression\n".encode("utf-16"), "UTF-16"),
        ("e.json", b"[]", r"\.csv, \.jsonl or \.txt"),
    ],
)
def test_a_file_that_is_no_table_is_an_error(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        read_expressions(_write(tmp_path, text, name), VIDEOS)


def test_a_uri_with_credentials_names_a_video_and_is_quoted_without_them(tmp_path: Path) -> None:
    video = Video("s3://REDACTED@bucket/a.mp4?region=eu")
    uri = "s3://KEY:CANARY@bucket/{}.mp4?region=eu"
    rows = ["video,expression", f"{uri.format('a')},a swan", f"{uri.format('b')},a swan", f"{uri.format('c')},a,swan"]
    found = read_expressions(_write(tmp_path, "\n".join(rows)), [video])
    assert [one.text for one in found.by_video[video.path]] == ["a swan"]
    assert [one.video for one in found.problems] == [f"s3://REDACTED@bucket/{name}.mp4?region=eu" for name in "bc"]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a sentence itself goes to --text"):
        read_expressions(str(tmp_path / "gone.csv"), VIDEOS)
