import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipelines.errors import BadItem
from pipelines.sources.a2d_clip import annotation_of_h5, decoded_clip
from sgmg.masks import mask_to_rle, rle_area

WHOLE = {"instance": np.array([4]), "reMask": np.ones((5, 3), np.uint8), "reBBox": np.arange(4.0)[:, None]}


def h5(**fields: np.ndarray | None) -> bytes:
    """A file about one instance at a frame of height 3, width 5, with other fields; None leaves one out."""
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, values in (WHOLE | fields).items():
            if values is not None:
                file[name] = values
    return data.getvalue()


def test_masks_are_stored_by_columns() -> None:
    mask = np.zeros((2, 5, 3), np.uint8)
    mask[1, 4, 0] = 1  # the second instance, last column, first row
    found = annotation_of_h5(
        "v", "v.h5", h5(instance=np.array([0, 4]), reMask=mask, reBBox=np.arange(8.0).reshape(4, 2)), (3, 5)
    )
    assert list(found) == [0, 4]
    assert found[4].rle == mask_to_rle(mask[1].T > 0)
    assert found[4].box == (1, 3, 5, 7)


def test_a_mask_without_pixels_is_annotated_as_absent() -> None:
    found = annotation_of_h5("v", "v.h5", h5(reMask=np.zeros((5, 3), np.uint8)), (3, 5))
    assert rle_area(found[4].rle, (3, 5)) == 0


@pytest.mark.parametrize("field", ["reMask", "reBBox", "instance"])
def test_an_h5_that_lacks_a_field_is_named(field: str) -> None:
    with pytest.raises(BadItem, match=rf"v\.h5 lacks {field}\. Unpack"):
        annotation_of_h5("v", "v.h5", h5(**{field: None}), (3, 5))


@pytest.mark.parametrize(
    "fields", [{"reMask": np.ones((2, 5, 3), np.uint8)}, {"reBBox": np.ones(3)}, {"instance": np.array([1, 2])}]
)
def test_fields_that_disagree_are_named(fields: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadItem, match=r"v\.h5 has \d instances, reMask of shape .* which do not fit"):
        annotation_of_h5("v", "v.h5", h5(**fields), (3, 5))


def test_a_mask_of_another_size_than_the_clip_is_named() -> None:
    with pytest.raises(BadItem, match=r"v\.h5 has masks of height, width \(3, 5\), but the clip has \(5, 3\)"):
        annotation_of_h5("v", "v.h5", h5(), (5, 3))


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_a_damaged_h5_is_named(size: int) -> None:
    with pytest.raises(BadItem, match=r"v\.h5 is no HDF5 file or damaged"):
        annotation_of_h5("v", "v.h5", h5()[:size], (3, 5))


@pytest.mark.parametrize("place", range(48, 55))
def test_a_flipped_byte_of_a_group_is_damage(place: int) -> None:
    data = bytearray(h5())
    data[place] ^= 0xFF
    with pytest.raises(BadItem, match=r"v\.h5 is no HDF5 file or damaged"):
        annotation_of_h5("v", "v.h5", bytes(data), (3, 5))


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_no_flipped_byte_of_an_h5_ends_more_than_its_video(flip: int) -> None:
    whole = h5()
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= flip
        with suppress(BadItem):
            annotation_of_h5("v", "v.h5", bytes(data), (3, 5))


def test_masks_that_would_not_fit_into_memory_are_not_read() -> None:
    data = io.BytesIO(h5(reMask=None))
    with h5py.File(data, "a") as file:
        file.create_dataset("reMask", (2**40, 2**20), np.uint8, chunks=(8, 8))
    with pytest.raises(BadItem, match=r"v\.h5 has masks of height, width \(1048576, 1099511627776\), but the clip has"):
        annotation_of_h5("v", "v.h5", data.getvalue(), (3, 5))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_clip_tagged_in_latin_1_is_read(
    make_video: Callable[..., Path], latin_1: Callable[[Path], Path], name: str
) -> None:
    path = latin_1(make_video(name, np.zeros((3, 24, 32, 3), np.uint8)))
    assert len(decoded_clip("v", name, path.read_bytes(), 95).frames) == 3


@pytest.mark.parametrize(
    "name",
    ["zero_bytes.mp4", "audio_only_from_nasa.m4a", "text_not_video.mp4", "truncated_no_moov.mp4", "truncated_mdat.mp4"],
)
def test_a_clip_that_is_no_video_or_cut_short_is_named(data_kit: Path, name: str) -> None:
    data = (data_kit / "videos" / f"constructed__{name}").read_bytes()
    with pytest.raises(BadItem, match=r"v\.mp4 is no video or damaged"):
        decoded_clip("v", "v.mp4", data, 95)


def test_a_rotation_tag_is_ignored_as_masks_ignore_it(data_kit: Path) -> None:
    clip = decoded_clip("v", "v.mp4", (data_kit / "videos" / "constructed__rot90_tagged.mp4").read_bytes(), 95)
    assert (clip.width, clip.height, len(clip.frames), clip.dropped) == (428, 240, 24, ())
