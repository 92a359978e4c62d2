from itertools import permutations

import numpy as np
import pytest

from sgmg.davis import score_semi_supervised, score_unsupervised
from sgmg.metrics import contour_accuracy, frame_statistics, region_similarity, score_track


def index_maps(seed: int, frames: int = 5, objects: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, objects + 1, size=(frames, 6, 8))
    coarse[0, 0, 0] = objects
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def renamed(maps: np.ndarray, ids: dict[int, int]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for old, new in ids.items():
        table[old] = new
    return table[maps]


def test_objects_are_found_whatever_the_result_calls_them() -> None:
    truths = index_maps(0)
    tracks = score_unsupervised("surf", renamed(truths, {1: 3, 2: 1, 3: 2}), truths)
    assert [track.j.mean for track in tracks] == [1.0, 1.0, 1.0]
    assert [(track.result_id, track.truth_id) for track in tracks] == [(1, 2), (2, 3), (3, 1)]
    assert [track.name for track in tracks] == ["surf_1", "surf_2", "surf_3"]


def test_the_assignment_is_the_best_of_all() -> None:
    results, truths = index_maps(1), index_maps(2)

    def jf(result: int, truth: int) -> float:
        j = region_similarity(results == result, truths == truth)
        f = contour_accuracy(results == result, truths == truth)
        return float((j + f).mean() / 2)

    best = max(sum(jf(result, truth) for truth, result in enumerate(order, 1)) for order in permutations((1, 2, 3)))
    tracks = score_unsupervised("surf", results, truths)
    assert sum((track.j.mean + track.f.mean) / 2 for track in tracks) == pytest.approx(best)


def test_pairs_are_scored_like_tracks_with_void_left_out() -> None:
    results, truths = index_maps(3), index_maps(4)
    truths[:, 10:20, 30:50] = 255
    void = truths == 255
    for track in score_unsupervised("surf", results, truths):
        alone = score_track(track.name, results == track.result_id, truths == track.truth_id, void)
        assert (track.j, track.f) == (alone.j, alone.f)


def test_objects_the_results_lack_are_empty() -> None:
    truths = index_maps(5)
    tracks = score_unsupervised("surf", renamed(truths, {3: 0}), truths)
    assert [track.j.mean for track in tracks[:2]] == [1.0, 1.0]
    assert tracks[2].j.mean < 0.5
    assert tracks[2].truth_id == 3


def test_results_nobody_asked_for_are_left_over() -> None:
    truths = index_maps(6, objects=2)
    results = truths.copy()
    results[:, 40:, :] = 7
    tracks = score_unsupervised("surf", results, truths)
    assert [track.result_id for track in tracks] == [1, 2]


def test_objects_that_enter_later_are_background() -> None:
    truths = index_maps(7, objects=2)
    late = truths.copy()
    late[2:, :8, :8] = 3
    absent = np.where(late == 3, 0, late)
    assert score_unsupervised("surf", truths, late) == score_unsupervised("surf", truths, absent)


def test_ids_are_taken_at_their_word_in_the_semi_supervised_protocol() -> None:
    truths = index_maps(8)
    tracks = score_semi_supervised("surf", renamed(truths, {1: 2, 2: 1}), truths)
    assert [track.j.mean for track in tracks] == [0.0, 0.0, 1.0]


def test_the_first_and_last_frame_do_not_count_in_the_semi_supervised_protocol() -> None:
    truths = index_maps(9)
    results = truths.copy()
    results[[0, -1]] = 0
    assert [track.f.mean for track in score_semi_supervised("surf", results, truths)] == [1.0, 1.0, 1.0]
    assert max(track.j.mean for track in score_unsupervised("surf", results, truths)) < 1.0


def test_void_is_background_in_the_semi_supervised_protocol() -> None:
    results, truths = index_maps(10), index_maps(10)
    truths[:, 10:20, 30:50] = 255
    for track in score_semi_supervised("surf", results, truths):
        j = region_similarity(results[1:-1] == track.result_id, truths[1:-1] == track.truth_id)
        assert track.j == frame_statistics(j)
        assert track.j.mean < 1.0


def test_ids_beyond_the_truth_are_refused_in_the_semi_supervised_protocol() -> None:
    truths = index_maps(11, objects=2)
    with pytest.raises(ValueError, match="hold object 5, but the first true frame only 2"):
        score_semi_supervised("surf", renamed(truths, {1: 5}), truths)


@pytest.mark.parametrize("score", [score_unsupervised, score_semi_supervised])
def test_grey_pictures_are_not_taken_for_index_maps(score) -> None:
    truths = index_maps(12)
    with pytest.raises(ValueError, match="Results of 'surf' hold 255 objects; at most 20"):
        score("surf", renamed(truths, {1: 255}), truths)


def test_results_of_another_size_are_refused() -> None:
    truths = index_maps(13)
    with pytest.raises(ValueError, match=r"\(5, 48, 64\).*\(5, 48, 63\)"):
        score_unsupervised("surf", truths, truths[:, :, 1:])


def test_a_truth_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="'surf' holds no object"):
        score_unsupervised("surf", index_maps(14), np.full((5, 48, 64), 255, dtype=np.uint8))


def test_two_frames_are_too_few_for_the_semi_supervised_protocol() -> None:
    truths = index_maps(15, frames=2)
    with pytest.raises(ValueError, match="2 frames"):
        score_semi_supervised("surf", truths, truths)


def test_maps_that_are_not_integers_are_refused() -> None:
    truths = index_maps(16)
    with pytest.raises(TypeError):
        score_unsupervised("surf", truths, truths.astype(np.float32))
