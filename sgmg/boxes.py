"""Box conversions and overlaps, as pure functions whose names carry format and unit.

cxcywh = centre, width, height; xyxy = first corner, last corner; unit = fractions of the frame, pixels = its pixels.
Nothing here rounds, clips or edits in place, and everything but `inverse_sigmoid` works on any leading axes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgmg import vector_math

vector_math.settle()

OVERLAP_EPS = 1e-6
"""Added to numerator and denominator of IoU and gIoU, so that empty boxes give numbers (spec 9)."""

LOGIT_EPS = 1e-5
"""Lower bound of a probability and of its complement in `inverse_sigmoid` (spec 6)."""


def cxcywh_to_xyxy(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Converts centre and size to the two corners.

    >>> cxcywh_to_xyxy(torch.tensor([4.0, 3.0, 2.0, 6.0]))
    tensor([3., 0., 5., 6.])
    """
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Converts the two corners to centre and size.

    >>> xyxy_to_cxcywh(torch.tensor([3.0, 0.0, 5.0, 6.0]))
    tensor([4., 3., 2., 6.])
    """
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], dim=-1)


def pixels_from_unit(boxes: Float[Tensor, "*n 4"], sizes: Int[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Converts unit boxes, xyxy or cxcywh, to pixels of frames of `sizes` (height, width); leading axes broadcast.

    >>> pixels_from_unit(torch.tensor([0.5, 0.5, 0.25, 1.0]), torch.tensor([90, 160]))
    tensor([80., 45., 40., 90.])
    """
    return boxes * _width_height_twice(sizes)


def unit_from_pixels(boxes: Float[Tensor, "*n 4"], sizes: Int[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Converts boxes in pixels, xyxy or cxcywh, to units of frames of `sizes` (height, width); leading axes broadcast.

    >>> unit_from_pixels(torch.tensor([80.0, 45.0, 40.0, 90.0]), torch.tensor([90, 160]))
    tensor([0.5000, 0.5000, 0.2500, 1.0000])
    """
    return boxes / _width_height_twice(sizes)


def iou_and_union(
    a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Returns intersection over union of xyxy boxes, and the area of the union in square units of the boxes (spec 9).

    Leading axes broadcast: `a, b` of one shape compares box by box, `a[:, None], b` every a with every b.

    >>> iou, union = iou_and_union(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
    >>> iou, union
    (tensor([0.3333]), tensor([6.]))
    """
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = _area(overlap.clamp(min=0))
    union = _area(a[..., 2:] - a[..., :2]) + _area(b[..., 2:] - b[..., :2]) - intersection
    return (intersection + OVERLAP_EPS) / (union + OVERLAP_EPS), union


def generalized_iou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*n"]:
    """Returns IoU minus the share of the enclosing box that neither xyxy box covers: -1 (far apart) to 1 (spec 9).

    Leading axes broadcast as in `iou_and_union`. Parity: two zero boxes give 0, not 1.

    >>> boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [3.0, 0.0, 4.0, 1.0]])
    >>> generalized_iou(boxes[:, None], boxes)
    tensor([[ 1.0000, -0.5000],
            [-0.5000,  1.0000]])
    """
    iou, union = iou_and_union(a, b)
    enclosing = _area(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    # Parity: the epsilon is in this fraction too; therefore two zero boxes give 0 instead of 1.
    return iou - (enclosing - union + OVERLAP_EPS) / (enclosing + OVERLAP_EPS)


def inverse_sigmoid(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Returns the logit of x, clipped to about ±11.5 (spec 6).

    >>> inverse_sigmoid(torch.tensor([0.0, 0.5, 1.0]))
    tensor([-11.5129,   0.0000,  11.5129])
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=LOGIT_EPS) / (1 - x).clamp(min=LOGIT_EPS))


def _width_height_twice(sizes: Int[Tensor, "*n 2"]) -> Int[Tensor, "*n 4"]:
    width_height = sizes.flip(-1)
    return torch.cat([width_height, width_height], dim=-1)


def _area(sides: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return sides[..., 0] * sides[..., 1]
