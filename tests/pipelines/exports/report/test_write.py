import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exports.report import write_report
from pipelines.exports.report.write import script
from pipelines.files import Folder
from pipelines.predictions import Prediction

Predict = Callable[..., Prediction]
Save = Callable[..., Folder]


def handed_over(out: Folder, name: str) -> list[Any]:
    """What a data file hands to the page."""
    text = out.read(f"report/data/{name}").decode("ascii")
    found = re.fullmatch(r"report\.\w+\((.*)\);\n", text)
    assert found
    return json.loads(f"[{found[1]}]")


def rows(predict: Predict, count: int) -> list[Prediction]:
    masks = np.zeros((2, 6, 9), np.bool_)
    return [predict(f"v{n:03d}", "0", masks, source=f"/in/{n % 2}/v{n:03d}.mp4", text="it") for n in range(count)]


@pytest.fixture(autouse=True)
def _no_videos_to_decode(tmp_path: Path) -> None:
    (tmp_path / "run/overlay").mkdir(parents=True)
    for number in range(120):
        (tmp_path / f"run/overlay/v{number:03d}.jpg").write_bytes(b"")


def test_the_index_holds_every_sentence_and_folder_once(predict: Predict, save: Save) -> None:
    out = save({"a.parquet": rows(predict, 120)})
    out.write("overlay/v007.mp4", b"")
    write_report(out)
    (index,) = handed_over(out, "index.js")
    assert index["sentences"] == ["it"]
    assert index["folders"] == ["/in/0", "/in/1"]
    assert index["videos"]["name"][:2] == ["v000.mp4", "v001.mp4"]
    assert index["videos"]["folder"][:3] == [0, 1, 0]
    assert index["rows"]["score"] == [750] * 120
    assert out.names("report/data") == ["index.js", "page-0000.js", "page-0001.js", "page-0002.js"]
    number, details = handed_over(out, "page-0002.js")
    assert (number, len(details)) == (2, 20)
    first = handed_over(out, "page-0000.js")[1]
    assert first["v007"]["overlay"] == "../overlay/v007.mp4"
    assert first["v007"]["still"] == "../overlay/v007.jpg"
    assert first["v008"]["overlay"] is None
    assert first["v007"]["source"] == "/in/1/v007.mp4"


def test_written_again_it_shows_what_is_there_then(predict: Predict, save: Save) -> None:
    out = save({"a.parquet": rows(predict, 120)})
    write_report(out)
    before = {name: out.read(f"report/data/{name}") for name in out.names("report/data")}
    write_report(out)
    assert before == {name: out.read(f"report/data/{name}") for name in out.names("report/data")}
    out.write("report/data/mine.js", b"")
    out.write("report/data/.unfinished-1-page-0000.js", b"half")
    save({"a.parquet": rows(predict, 3)})
    write_report(out)
    assert out.names("report/data") == ["index.js", "mine.js", "page-0000.js"]


def test_the_quarantine_and_the_settings_are_told(predict: Predict, save: Save) -> None:
    out = save({"a.parquet": rows(predict, 1)})
    lines = [
        {"video": f"/in/\u202e{n}.mp4", "stage": "decode", "reason": "empty", "expression": n} for n in range(1001)
    ]
    out.write("quarantine.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    out.write(
        "config.json", json.dumps({"fps": 6, "made_by": {"a": ["b", 1]}, "none": None, "long": "x" * 999}).encode()
    )
    write_report(out)
    (index,) = handed_over(out, "index.js")
    assert index["problems"] == {"count": 1001, "files": 2}
    assert handed_over(out, "problems-0001.js") == [
        1,
        [{"video": "/in/\u202e1000.mp4", "stage": "decode", "reason": "empty", "expression": "1000"}],
    ]
    assert index["about"] == [
        ["sentences were asked", "each for itself"],
        ["fps", "6"],
        ["made_by.a", "b, 1"],
        ["long", "x" * 300 + "…"],
    ]


def test_how_many_sentences_were_asked_together_is_told(predict: Predict, save: Save) -> None:
    out = save({"a.parquet": rows(predict, 1)})
    out.write("config.json", json.dumps({"made_by": {"sentences_together": 8}}).encode())
    write_report(out)
    assert handed_over(out, "index.js")[0]["about"][0] == ["sentences were asked", "up to 8 of a video together"]


def test_a_corpus_without_a_usable_video_has_a_page_too(tmp_path: Path) -> None:
    out = Folder(str(tmp_path / "run"))
    out.write("quarantine.jsonl", b'{"video": "a", "stage": "list", "reason": "gone"}\n')
    write_report(out)
    assert handed_over(out, "index.js")[0]["videos"]["id"] == []
    assert out.has("report/index.html")


def test_a_damaged_quarantine_is_named(tmp_path: Path) -> None:
    out = Folder(str(tmp_path / "run"))
    out.write("quarantine.jsonl", b'{"video": "a"}\n[1]\n')
    with pytest.raises(ValueError, match=r"quarantine\.jsonl, line 2 is no JSON object"):
        write_report(out)


def test_no_value_ends_its_script_or_leaves_ascii() -> None:
    hostile = "</script><!-- \u2028 \ud800 'x' \"y\" \\ \N{GRINNING FACE}"
    text = script("page", 0, {"a": hostile}).decode("ascii")
    assert "<" not in text
    assert json.loads(text.removeprefix("report.page(0,").removesuffix(");\n")) == {"a": hostile}
