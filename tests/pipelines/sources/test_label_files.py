from pathlib import Path

import pytest

from pipelines.errors import LayoutError
from pipelines.files import Folder
from pipelines.sources.label_files import MOST_BYTES, json_content, label_files, single_names


def test_raw_is_a_file_or_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "day 1").mkdir()
    for name in ("b.json", "a.JSON", "c.txt", "day 1/d.json", "._b.json"):
        (tmp_path / name).write_text(name)
    assert label_files(Folder(str(tmp_path)), ".json").names == ("a.JSON", "b.json", "day 1/d.json")
    single = label_files(Folder(str(tmp_path / "c.txt")), ".json")
    assert single.read(*single.names) == b"c.txt"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(MOST_BYTES + 10**8)
    found = label_files(Folder(str(tmp_path / "a.json")), ".json")
    with pytest.raises(LayoutError, match=r"a.json has 2.1 GB, but at most 2 GB are read at once. Split it"):
        found.read("a.json")


def test_content_is_checked_and_the_first_key_that_does_not_fit_is_named() -> None:
    assert json_content(b'{"a": [1]}', dict[str, list[int]], "x.json", "X") == {"a": [1]}
    with pytest.raises(LayoutError, match=r"x.json is not X: X has no key 'b'. Expected `array`, got `object`"):
        json_content(b'{"a": 1, "b": 2}', list[int], "x.json", "X", ("a",))
    with pytest.raises(LayoutError, match=r"x.json is not X: Expected `int`, got `str` - at `\$\[0\]`. Check"):
        json_content(b'["a"]', list[int], "x.json", "X", ("a",))
    with pytest.raises(LayoutError, match=r"x.json is no JSON, or cut short"):
        json_content(b"[1, NaN]", list[float], "x.json", "X")


def test_two_videos_need_two_names() -> None:
    single_names([("a", "1.json"), ("b", "1.json")])
    with pytest.raises(LayoutError, match=r"Two videos are called 'a', in 1.json and in 2.json"):
        single_names([("a", "1.json"), ("a", "2.json")])


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "day 2").mkdir()
    for path in (tmp_path / "raw/a.json", tmp_path / "day 2/b.json"):
        path.touch()
    (tmp_path / "raw/more").symlink_to(tmp_path / "day 2")
    (tmp_path / "raw/loop").symlink_to(tmp_path / "raw")
    assert label_files(Folder(str(tmp_path / "raw")), ".json").names == ("a.json", "more/b.json")
