from pathlib import Path

import pytest

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.sources.reading import annotation_rows, checked_video, image_frames


def test_a_quoted_text_may_hold_commas_and_a_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_bytes('\ufeffvideo,text\r\n\r\na,"a cat, a dog"\r\n'.encode())
    assert annotation_rows(Folder(str(tmp_path)), "texts.csv", ("video", "text")) == [["a", "a cat, a dog"]]


def test_an_empty_file_lacks_its_header(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").touch()
    with pytest.raises(LayoutError, match=r"texts\.csv begins with the columns none. It needs video, text, separated"):
        annotation_rows(Folder(str(tmp_path)), "texts.csv", ("video", "text"))


@pytest.mark.parametrize("name", ["", "..", "/etc/passwd", "a/../../b", "C:video", "a\\b", "a\nb"])
def test_names_that_would_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(BadItem, match="would leave its folder"):
        checked_video(name)


def test_no_frames_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadItem, match=rf"a: no frame is listed or found in {tmp_path}\. Unpack"):
        image_frames(Folder(str(tmp_path)), [], "a")
