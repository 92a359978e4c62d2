import pytest
import torch

from pipelines.inference.segment_clip import EncodedClip
from pipelines.serve.clip_cache import ClipCache
from sgmg.batch import VideoFeatures


def clip(size: int) -> EncodedClip:
    """A clip of so many bytes."""
    features = VideoFeatures((torch.zeros(1, 1, size // 4, 1, 1),), (), (), (), ())
    return EncodedClip(features, torch.tensor([[1, 1]]), (1, 1))


def test_clips_are_kept_until_others_need_their_place() -> None:
    cache = ClipCache(100)
    clips = {name: clip(40) for name in "abc"}
    cache.put("a", clips["a"])
    cache.put("b", clips["b"])
    assert cache.get("a") is clips["a"]
    cache.put("c", clips["c"])
    assert cache.get("b") is None
    assert cache.get("a") is clips["a"]
    assert (len(cache), cache.bytes) == (2, 80)


def test_a_clip_that_is_put_again_counts_once_and_one_that_is_too_large_is_not_kept() -> None:
    cache = ClipCache(100)
    for _ in range(3):
        cache.put("a", clip(60))
    assert cache.bytes == 60
    cache.put("b", clip(104))
    assert (cache.get("b"), cache.bytes) == (None, 60)
    cache.drop("a")
    cache.drop("a")
    assert (len(cache), cache.bytes) == (0, 0)


@pytest.mark.parametrize("most", [0])
def test_without_room_nothing_is_kept(most: int) -> None:
    cache = ClipCache(most)
    cache.put("a", clip(4))
    assert len(cache) == 0
