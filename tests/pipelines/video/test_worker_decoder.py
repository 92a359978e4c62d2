"""A worker keeps its decoder, unless something went wrong with it."""

import pytest

from pipelines.errors import BadItem
from pipelines.video.listing import Video
from pipelines.video.worker_decoder import decoder


def test_a_decoder_is_kept_for_the_next_task_of_the_same_limit() -> None:
    with decoder(11) as one:
        pass
    with decoder(11) as again, decoder(12) as other:
        assert again is one
        assert other is not one


def test_two_at_once_are_two() -> None:
    with decoder(13) as one, decoder(13) as other:
        assert one is not other


def test_one_that_was_left_in_the_middle_is_not_used_again() -> None:
    with pytest.raises(BadItem), decoder(14) as one:
        one.probe(Video("/nowhere.mp4"))
    with decoder(14) as again:
        assert again is not one
