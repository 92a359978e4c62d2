"""When the groups of a long video are joined, from news in any order."""

from dataclasses import replace
from itertools import permutations

import pytest

from pipelines.annotate.events import LongVideo, News, StretchDone, VideoSeen
from pipelines.annotate.layout import expression_groups
from pipelines.annotate.long_videos import JoinTask, LongVideos
from pipelines.errors import Failure
from pipelines.records import Expression
from pipelines.video.listing import Video

VIDEO = Video("/v.mp4")
SEEN = VideoSeen(VIDEO.id, VIDEO.path, "stamp", "file")
(DOG,) = expression_groups(VIDEO.id, "file", "settings", [Expression("d", "the dog")])
(CAT,) = expression_groups(VIDEO.id, "file", "settings", [Expression("c", "the cat")])
LONG = LongVideo(SEEN, 2.0, (DOG, CAT), stretches=2, todo=3)
DONE = [StretchDone(VIDEO.id, group.name, number) for group, number in ((DOG, 0), (DOG, 1), (CAT, 1))]
PLANNED = (News(long=(LONG,)), ())
FAILURE = Failure(VIDEO.path, "decode", "1 to 2 s: it took too long")

Step = tuple[News, tuple[StretchDone, ...]]


def tasks_after(*steps: Step) -> list[JoinTask]:
    long = LongVideos()
    return [task for news, done in steps for task in long.apply(news, done)]


@pytest.mark.parametrize("order", list(permutations([PLANNED, *((News(), (one,)) for one in DONE)])))
def test_groups_are_joined_with_the_last_news_whichever_that_is(order: tuple[Step, ...]) -> None:
    assert tasks_after(*order[:-1]) == []
    dog, cat = tasks_after(*order)
    assert (dog.group, cat.group) == (DOG, CAT)
    assert (dog.entry.sentences, dog.entry.file, dog.entry.seconds) == ((("d", "the dog"),), DOG.file, 2.0)
    assert (dog.entry.fingerprint, dog.entry.stamp, dog.failures) == ("file", "stamp", ())


def test_a_video_of_which_only_the_join_is_left_is_joined_at_once() -> None:
    dog, cat = tasks_after((News(long=(replace(LONG, todo=0),)), ()))
    assert (dog.group, cat.group) == (DOG, CAT)


def test_a_stretch_that_failed_is_missing_in_its_group_alone() -> None:
    lost = replace(DONE[1], failures=(FAILURE,))
    dog, cat = tasks_after(PLANNED, (News(failed=(lost,)), ()), (News(), (DONE[0], DONE[2])))
    assert (dog.failures, cat.failures) == ((FAILURE,), ())


def test_news_that_arrive_twice_count_once() -> None:
    steps = [PLANNED, (News(), (DONE[0],)), (News(), (DONE[0],)), PLANNED, (News(), (DONE[1],))]
    assert tasks_after(*steps) == []
    assert len(tasks_after(*steps, (News(), (DONE[2],)))) == 2
