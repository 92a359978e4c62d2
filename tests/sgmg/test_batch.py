import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from sgmg.batch import ClipBatch, VideoFeatures


def a_batch(**changes: Tensor | None) -> ClipBatch:
    """Two clips of two frames and three expressions, with `changes`."""
    fields: dict[str, Tensor | None] = {
        "frames": torch.rand(2, 2, 3, 4, 6),
        "padding": torch.zeros(2, 4, 6, dtype=torch.bool),
        "sizes": torch.tensor([[4, 6], [3, 5]]),
        "token_ids": torch.tensor([[0, 5, 2], [0, 6, 2], [0, 7, 2]]),
        "token_padding": torch.zeros(3, 3, dtype=torch.bool),
        "clip_of": torch.tensor([0, 0, 1]),
    }
    return ClipBatch(**fields | changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("frames", torch.rand(2, 2, 1, 4, 6), id="frames of one channel"),
        pytest.param(
            "frames", torch.zeros(2, 2, 3, 4, 6, dtype=torch.int32), id="frames that are neither floats nor bytes"
        ),
        pytest.param("padding", torch.zeros(2, 4, 5, dtype=torch.bool), id="a padding of another width"),
        pytest.param("padding", torch.zeros(2, 4, 6), id="a padding that is not boolean"),
        pytest.param("sizes", torch.tensor([[4, 6]]), id="the size of one clip of two"),
        pytest.param("token_padding", torch.zeros(3, 2, dtype=torch.bool), id="a padding of fewer words"),
        pytest.param("clip_of", torch.tensor([0, 1]), id="two clips for three expressions"),
        pytest.param("target_frame", torch.tensor([0]), id="an asked frame for one clip of two"),
    ],
)
def test_a_batch_whose_shapes_disagree_is_refused_and_the_field_named(field: str, value: Tensor) -> None:
    with pytest.raises(TypeCheckError, match=field):
        a_batch(**{field: value})


def test_nobody_edits_a_batch_in_place() -> None:
    batch = a_batch()
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.token_ids = torch.zeros(3, 3, dtype=torch.long)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("target_frame", [None, torch.tensor([1, 0])])
def test_a_batch_moved_to_the_cpu_is_the_same_batch(target_frame: Tensor | None) -> None:
    batch = a_batch(target_frame=target_frame)
    moved = batch.to("cpu")
    assert moved is not batch
    for field in dataclasses.fields(ClipBatch):
        torch.testing.assert_close(getattr(moved, field.name), getattr(batch, field.name), rtol=0, atol=0)


def test_moving_a_batch_moves_all_of_it() -> None:
    # The meta device stands for another device on a machine that has only a CPU.
    moved = a_batch(target_frame=torch.tensor([1, 0])).to("meta")
    assert {getattr(moved, field.name).device.type for field in dataclasses.fields(ClipBatch)} == {"meta"}


def test_moving_features_moves_the_tensors_inside_their_tuples() -> None:
    level = torch.rand(1, 2, 8, 3, 4)
    features = VideoFeatures(
        levels=(level, level[..., :2, :2]),
        paddings=(torch.zeros(1, 3, 4, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool)),
        positions=(torch.rand(1, 8, 3, 4), torch.rand(1, 8, 2, 2)),
        attenuations=(torch.rand(3, 4), torch.rand(2, 2)),
        details=(),
    )
    moved = features.to("meta")
    assert [tuple(level.shape) for level in moved.levels] == [(1, 2, 8, 3, 4), (1, 2, 8, 2, 2)]
    assert {level.device.type for level in (*moved.levels, *moved.paddings, *moved.positions)} == {"meta"}
