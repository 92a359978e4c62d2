"""A query is chosen frame by frame, and keeps to one object."""

import numpy as np

from sgmg.following import QueryChooser

NOWHERE = np.zeros(3)


def test_without_a_mask_before_the_highest_mean_score_decides() -> None:
    chooser = QueryChooser(context=8)
    assert chooser.choose(np.array([0.2, 0.9, 0.1]), NOWHERE) == 1
    assert chooser.choose(np.array([0.8, 0.3, 0.1]), NOWHERE) == 1  # 0.5 against 0.6
    assert chooser.choose(np.array([0.9, 0.3, 0.1]), NOWHERE) == 0  # 0.633 against 0.5


def test_the_mask_before_keeps_the_object_where_another_one_comes_to_look_likelier() -> None:
    chooser = QueryChooser(context=2)
    assert chooser.choose(np.array([0.9, 0.5, 0.1]), NOWHERE) == 0
    on_the_first = np.array([0.7, 0.1, 0.0])
    for _ in range(5):
        assert chooser.choose(np.array([0.4, 0.9, 0.1]), on_the_first) == 0
    assert chooser.choose(np.array([0.4, 0.9, 0.1]), NOWHERE) == 1


def test_the_object_is_followed_where_it_changes_its_query() -> None:
    chooser = QueryChooser(context=8)
    assert chooser.choose(np.array([0.9, 0.5, 0.1]), NOWHERE) == 0
    assert chooser.choose(np.array([0.6, 0.6, 0.1]), np.array([0.1, 0.8, 0.0])) == 1  # 0.85 against 1.35


def test_scores_before_the_context_count_no_more() -> None:
    chooser = QueryChooser(context=2)
    for _ in range(3):
        assert chooser.choose(np.array([1.0, 0.4, 0.0]), NOWHERE) == 0
    assert chooser.choose(np.array([0.0, 0.4, 0.0]), NOWHERE) == 0  # 0.5 against 0.4
    assert chooser.choose(np.array([0.0, 0.4, 0.0]), NOWHERE) == 1


def test_of_equal_queries_the_first_is_chosen() -> None:
    assert QueryChooser(context=1).choose(np.array([0.2, 0.5, 0.5]), NOWHERE) == 1
