"""What a manifest says of its rows."""

from pipelines.manifest import Manifest, RowInfo, Shard

ROWS = (
    RowInfo("a", 1, 3, untrainable={0: "crowd", 2: "box without area"}),
    RowInfo("b", 1, 2),
    RowInfo("c", 1, 2, untrainable={1: "crowd"}),
)


def manifest_of(frames: int) -> Manifest:
    shards = (Shard("0", 1, (ROWS[:1], ROWS[1:2])), Shard("1", 1, (ROWS[2:],)))
    return Manifest("own", "train", {}, {"videos": 3, "frames": frames}, {}, 0, "", shards)


def test_rows_come_in_the_order_of_the_shards() -> None:
    assert manifest_of(3).rows == list(ROWS)


def test_what_nobody_can_learn_from_is_summed_by_reason() -> None:
    manifest = Manifest.from_json(manifest_of(3).to_json())
    assert manifest.untrainable.most_common() == [("crowd", 2), ("box without area", 1)]


def test_videos_of_which_one_frame_is_annotated_are_no_single_images() -> None:
    assert manifest_of(3).single_images
    assert not manifest_of(4).single_images
