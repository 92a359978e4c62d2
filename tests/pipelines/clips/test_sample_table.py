"""How many samples the rows of manifests have, and which."""

import numpy as np
import pytest

from manifests import manifest_of
from pipelines.clips.sample_table import SampleTable, anchor_count
from pipelines.manifest import RowInfo

VIDEO = RowInfo("video", frames=11, expressions=2)
CROWD = RowInfo("crowd", frames=4, expressions=3, untrainable={1: "crowd"})
ASKED = RowInfo("asked", frames=30, expressions=3, anchor_counts=(3, 1, 2), untrainable={1: "crowd"})
WITHHELD = RowInfo("withheld", frames=9, expressions=1, untrainable={0: "truth withheld"})
UNANNOTATED = RowInfo("unannotated", frames=0, expressions=2)
MANIFESTS = (
    manifest_of([[VIDEO, WITHHELD], [CROWD]], "one", groups_per_shard=2),
    manifest_of([[ASKED, UNANNOTATED, VIDEO]], "two"),
)
TABLE = SampleTable.of(MANIFESTS, (5, 1))


def test_rows_are_counted_over_all_manifests_with_the_clip_length_of_each() -> None:
    assert [row.video for row in TABLE.rows] == ["video", "withheld", "crowd", "asked", "unannotated", "video"]
    assert TABLE.counts.tolist() == [2 * 3, 0, 2 * 1, 3 + 2, 0, 2 * 11]
    assert TABLE.part_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert TABLE.names == ("one train", "two train")


def test_a_row_is_found_in_its_row_group() -> None:
    assert list(TABLE.row_groups) == [(0, "one-0.parquet", 0), (0, "one-0.parquet", 1), (1, "two-0.parquet", 0)]
    assert TABLE.row_group_of.tolist() == [0, 0, 1, 2, 2, 2]
    assert TABLE.first_rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("row", "samples"),
    [
        (0, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        (2, [(0, 0), (2, 0)]),
        (3, [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]),
    ],
)
def test_samples_go_by_expression_and_anchor_without_what_cannot_be_learned_from(
    row: int, samples: list[tuple[int, int]]
) -> None:
    assert len(samples) == TABLE.counts[row]
    numbers = np.arange(len(samples))
    found = TABLE.expressions_and_anchors(np.full_like(numbers, row), numbers)
    assert list(zip(*(values.tolist() for values in found), strict=True)) == samples


def test_the_counts_are_those_of_each_expression() -> None:
    assert [anchor_count(ASKED, expression, 5) for expression in range(3)] == [3, 1, 2]
    assert anchor_count(VIDEO, 1, 5) == 3


def test_each_manifest_needs_a_clip_length() -> None:
    with pytest.raises(ValueError, match="2 manifests with 1 lengths"):
        SampleTable.of(MANIFESTS, (5,))
