"""Which samples an epoch has, when parts of the data are repeated or thinned."""

from collections import Counter

import numpy as np
import pytest

from manifests import in_groups, manifest_of
from pipelines.clips.epoch_samples import EpochSamples
from pipelines.clips.sample_table import SampleTable
from pipelines.manifest import RowInfo

SENTENCES = (*[1, 2, 3] * 6, 2, 2)
VIDEOS = manifest_of(in_groups([RowInfo(f"{n}", frames=20, expressions=count) for n, count in enumerate(SENTENCES)], 3))
IMAGES = manifest_of([[RowInfo(f"{count}", frames=1, expressions=count) for count in (1, 2, 3, 4, 5, 6, 7, 6)]])
TABLE = SampleTable.of((VIDEOS, IMAGES), (5, 1))
COUNTS = tuple(int(TABLE.counts[TABLE.part_of == part].sum()) for part in (0, 1))

Drawn = tuple[int, int, int, int]
"""Part, row, number in the row, and repeat."""


def drawn(*weights: float, epoch: int = 0) -> list[Drawn]:
    """All samples of an epoch."""
    samples = EpochSamples(TABLE, weights, (0, epoch))
    rows = np.repeat(np.arange(len(TABLE.rows)), samples.counts)
    numbers, repeats = samples.numbers_in_table(rows, np.concatenate([np.arange(n) for n in samples.counts]))
    assert samples.total == len(rows)
    return list(zip(TABLE.part_of[rows].tolist(), rows.tolist(), numbers.tolist(), repeats.tolist(), strict=True))


def test_the_parts_are_as_large_as_the_tests_below_take_them() -> None:
    assert COUNTS == (160, 34)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [((1, 1), (160, 34)), ((2, 0.5), (320, 17)), ((0, 1), (0, 34)), ((0.05, 2.5), (8, 85)), ((1.1, 0.01), (176, 0))],
)
def test_weights_repeat_and_thin_the_samples_of_each_part_by_exact_counts(
    weights: tuple[float, float], counts: tuple[int, int]
) -> None:
    for epoch in (0, 1):
        samples = drawn(*weights, epoch=epoch)
        assert tuple(sum(part == wanted for part, *_ in samples) for wanted in (0, 1)) == counts
        assert len(samples) == len(set(samples))
        assert all(number < TABLE.counts[row] for _, row, number, _ in samples)


def test_a_part_that_is_repeated_has_each_sample_as_often_or_once_more() -> None:
    samples = drawn(2.25, 0)
    often = Counter((row, number) for _, row, number, _ in samples)
    assert Counter(often.values()) == {2: 120, 3: 40}
    assert all(repeat < often[row, number] for _, row, number, repeat in samples)


def test_what_is_thinned_is_drawn_anew_in_every_epoch_and_all_of_it_comes_in_time() -> None:
    epochs = [frozenset(drawn(0.5, 0, epoch=epoch)) for epoch in range(16)]
    assert len(set(epochs)) == 16
    assert len(frozenset.union(*epochs)) == COUNTS[0]
    assert frozenset(drawn(0.5, 0)) == epochs[0]


def test_without_weights_every_sample_comes_once() -> None:
    samples = EpochSamples(TABLE, None, (0, 0))
    assert samples.total == sum(COUNTS)
    np.testing.assert_array_equal(samples.counts, TABLE.counts)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1, -0.5), r"weight -0.5 of own train must be 0 or more"),
        ((float("nan"), 1), r"weight nan of own train"),
        ((1, float("inf")), r"weight inf of own train"),
        ((0.0, 0.0), r"weights \(0.0, 0.0\) of own train, own train sum to 0"),
        ((1,), r"1 weights for 2 prepared folders"),
    ],
)
def test_weights_that_make_no_epoch_are_refused(weights: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EpochSamples(TABLE, weights, (0, 0))
