"""When a run is scored, what is its best, and when it has seen enough."""

from dataclasses import replace

import pytest

from begun_run import TINY
from pipelines.training.score_keeper import ScoreKeeper


def due(steps: int = 10, per_epoch: int = 3, **settings: int) -> list[int]:
    keeper = ScoreKeeper(replace(TINY, **settings), per_epoch, steps)
    return [step for step in range(steps + 1) if keeper.is_due(step)]


def test_a_run_is_scored_by_epochs_or_by_steps_and_always_at_its_end() -> None:
    assert due() == [3, 6, 9, 10]
    assert due(valid_every=2) == [6, 10]
    assert due(valid_every_steps=4) == [4, 8, 10]
    assert due(steps=9) == [3, 6, 9]


def test_what_was_scored_before_a_restart_at_later_steps_does_not_stall_a_run() -> None:
    keeper = ScoreKeeper(replace(TINY, holdout=1, patience=2), 3, 30, {3: 0.2, 6: None, 9: 0.1, 12: 0.1, 15: 0.9})
    assert [keeper.has_stalled(step) for step in (3, 6, 9, 12, 15)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("scores", "stalled"),
    [
        ([], False),
        ([0.1, 0.2], False),
        ([0.2, 0.1], False),
        ([0.2, 0.1, 0.2], True),  # as good is not better
        ([0.2, None, 0.1], False),  # no score is no verdict
        ([0.2, 0.1, 0.3, 0.1], False),
        ([0.2, 0.1, 0.3, 0.1, 0.0], True),
    ],
)
def test_a_run_has_stalled_when_so_many_scores_brought_nothing_better(
    scores: list[float | None], stalled: bool
) -> None:
    keeper = ScoreKeeper(replace(TINY, holdout=1, patience=2), 1, 99, dict(enumerate(scores, start=1)))
    assert keeper.has_stalled(len(scores)) == stalled
    assert not ScoreKeeper(TINY, 1, 99, keeper.scores).has_stalled(len(scores))
