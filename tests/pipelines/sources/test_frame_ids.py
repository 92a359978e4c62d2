import pytest

from pipelines.sources.frame_ids import frame_id, frame_id_template


def test_a_video_may_be_called_like_the_open_place() -> None:
    assert frame_id(frame_id_template("v_{frame}_f_", "_i_2"), "00040") == "v_{frame}_f_40_i_2"


def test_the_name_of_a_whole_expression_has_no_frame_to_fill_in() -> None:
    with pytest.raises(ValueError, match=r"'17' holds no \{frame\}: it names an expression"):
        frame_id("17", "00001")
