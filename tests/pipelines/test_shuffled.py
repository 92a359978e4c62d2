"""Sentences that speak of other objects."""

from pipelines.records import Expression
from pipelines.shuffled import shuffled
from pipelines.truth import VideoTruth

ABOUT = {"0": (1,), "1": (1,), "2": (2,), "3": (3,)}


def test_every_sentence_is_taken_from_one_about_another_object() -> None:
    truth = VideoTruth("own", "valid", "v", (4, 4), ("0",), {}, tuple(Expression(id, id, ABOUT[id]) for id in ABOUT))
    asked = tuple(Expression(id, f"text of {id}") for id in ABOUT)
    found = shuffled(asked, truth)
    assert [one.id for one in found] == [*ABOUT]
    for one in found:
        assert ABOUT[one.text.removeprefix("text of ")] != ABOUT[one.id]


def test_a_sentence_stays_where_there_is_no_other_object() -> None:
    told = (Expression("0", "a", (1,)), Expression("1", "b", (1,)))
    truth = VideoTruth("own", "valid", "v", (4, 4), ("0",), {}, told)
    assert shuffled(told, truth) == told
