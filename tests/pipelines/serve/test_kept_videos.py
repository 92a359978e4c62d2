from pathlib import Path
from typing import Any

import pytest

from pipelines.serve.kept_videos import KeptVideo, KeptVideos
from pipelines.serve.refusal import Refusal


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> KeptVideos:
    """Keeps 100 bytes for a minute."""
    return KeptVideos(keep=60, most=100, clock=clock)


def add(kept: KeptVideos, folder: Path, id: str, size: int, **more: Any) -> KeptVideo:
    """Adds a video whose folder holds a file."""
    path = folder / f"{id}-{len(list(folder.iterdir()))}"
    path.mkdir()
    (path / "file").write_bytes(b"x")
    with kept.room(size):
        return kept.add(KeptVideo(id, more.get("opened"), path, size))  # pyright: ignore[reportArgumentType]


def test_a_video_goes_when_it_was_not_used_for_a_while(kept: KeptVideos, clock: Clock, tmp_path: Path) -> None:
    video = add(kept, tmp_path, "a", 10)
    clock.now = 50
    assert kept.get("a") is video
    clock.now = 109
    assert kept.seconds_left(video) == 1
    assert kept.find("a") is video
    clock.now = 170
    with pytest.raises(Refusal, match="There is no video of this id: videos are deleted 1 minutes after"):
        kept.get("a")
    assert not video.folder.exists()


def test_room_is_made_by_what_was_not_used_for_longest(kept: KeptVideos, clock: Clock, tmp_path: Path) -> None:
    videos = [add(kept, tmp_path, name, 40) for name in "ab"]
    clock.now = 1
    kept.get("a")
    clock.now = 2
    add(kept, tmp_path, "c", 50)
    assert kept.find("b") is None
    assert kept.bytes == 90
    assert [one.folder.exists() for one in videos] == [True, False]
    with pytest.raises(Refusal, match="take 0 MB, more than the service has left") as refused, kept.room(101):
        pass
    assert refused.value.status_code == 413


def test_room_is_held_for_a_video_that_is_on_its_way(kept: KeptVideos, tmp_path: Path) -> None:
    with kept.room(60):
        with pytest.raises(Refusal, match="more than the service has left"), kept.room(60):
            pass
        add(kept, tmp_path, "a", 40)
    add(kept, tmp_path, "b", 60)
    assert kept.bytes == 100


def test_a_video_that_is_read_stays_until_its_readers_are_done(kept: KeptVideos, clock: Clock, tmp_path: Path) -> None:
    video = add(kept, tmp_path, "a", 60)
    with kept.reading("a"):
        clock.now = 1000
        kept.sweep()
        with pytest.raises(Refusal, match="more than the service has left"), kept.room(60):
            pass
        kept.remove("a")
        assert kept.find("a") is None
        assert video.folder.exists()
    assert not video.folder.exists()


def test_the_same_video_twice_is_kept_once(kept: KeptVideos, tmp_path: Path) -> None:
    first = add(kept, tmp_path, "a", 40)
    again = add(kept, tmp_path, "a", 40)
    assert again is first
    assert (len(kept), kept.bytes) == (1, 40)
    assert [one.name for one in tmp_path.iterdir()] == ["a-0"]
