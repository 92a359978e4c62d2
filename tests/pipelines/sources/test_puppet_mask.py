"""JHMDB's MATLAB files: stacks of masks, and nothing else."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import scipy.io

from pipelines.errors import BadItem
from pipelines.sources.puppet_mask import puppet_masks

MASKS = np.random.default_rng(0).random((6, 4, 3)) < 0.5


def mat(value: Any, name: str = "part_mask", **options: Any) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"other": np.ones(3), name: value}, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.bool_, np.float64, np.int16])
@pytest.mark.parametrize("options", [{}, {"do_compression": True}])
def test_masks_are_read_from_any_numbers_packed_or_not(kind: type, options: dict[str, Any]) -> None:
    found = puppet_masks("v", "a.mat", mat(MASKS.astype(kind), **options))
    np.testing.assert_array_equal(found, np.moveaxis(MASKS, 2, 0))


def test_one_mask_is_a_stack_of_one_and_version_4_is_read_too() -> None:
    for options in ({}, {"format": "4"}):
        found = puppet_masks("v", "a.mat", mat(MASKS[..., 0].astype(np.uint8), **options))
        np.testing.assert_array_equal(found, MASKS[None, ..., 0])


def an_object() -> bytes:
    """A MATLAB object in place of the masks: the class of the array is 3 instead of 9."""
    data = mat(MASKS.astype(np.uint8))
    flags = struct.pack("<IIII", 6, 8, 9, 0)
    place = data.rindex(flags)
    return data[:place] + struct.pack("<IIII", 6, 8, 3, 0) + data[place + len(flags) :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no MATLAB file or damaged"),
        (b"no mat", "is no MATLAB file or damaged"),
        (mat(MASKS.astype(np.uint8), do_compression=True)[:-20], "is no MATLAB file or damaged"),
        (mat(MASKS.astype(np.uint8), name="mask"), "lacks part_mask"),
        (an_object(), "part_mask of class object"),
        (mat({"a": 1}), "part_mask of class struct"),
        (mat(np.array([1, "x"], dtype=object)), "part_mask of class cell"),
        (mat("text"), "part_mask of class char"),
        (mat(np.ones((2, 2, 2, 2))), "size 2x2x2x2, not one mask a frame"),
        (mat(np.ones((2, 2, 0))), "size 2x2x0, but masks have 1 to"),
    ],
)
def test_anything_else_is_the_fault_of_its_video_alone(data: bytes, said: str) -> None:
    with pytest.raises(BadItem, match=rf"v: a\.mat .*{said}.*npack"):
        puppet_masks("v", "a.mat", data)
