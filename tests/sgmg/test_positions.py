import math

import pytest
import torch

from sgmg.positions import pixel_positions, sine_embedding, word_positions


def spelled_out(angle: float, channels: int) -> list[float]:
    """E(v, channels) of spec 2, feature by feature."""
    phases = [angle / 10000 ** (2 * (i // 2) / channels) for i in range(channels)]
    return [math.cos(phase) if i % 2 else math.sin(phase) for i, phase in enumerate(phases)]


def corner(rows: int, columns: int, height: int, width: int) -> torch.Tensor:
    """Padding of a frame whose unpadded part is rows x columns."""
    padding = torch.ones(height, width, dtype=torch.bool)
    padding[:rows, :columns] = False
    return padding


@pytest.mark.usefixtures("in_float64")
def test_features_alternate_between_sine_and_cosine() -> None:
    angles = torch.tensor([[0.0, 0.3], [2.0, 6.28]])
    expected = [[spelled_out(angle, 8) for angle in row] for row in angles.tolist()]
    torch.testing.assert_close(sine_embedding(angles, 8), torch.tensor(expected))


@pytest.mark.usefixtures("in_float64")
def test_words_count_up_to_one_turn_and_padding_does_not_count() -> None:
    padding = torch.tensor([[False, False, False, False], [False, False, True, True]])
    positions = word_positions(padding, 8)
    for expression, counts in enumerate([[1, 2, 3, 4], [1, 2, 2, 2]]):
        for word, count in enumerate(counts):
            expected = spelled_out(2 * math.pi * count / (counts[-1] + 1e-6), 8)
            torch.testing.assert_close(positions[expression, word], torch.tensor(expected))


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (2, 3)])
@pytest.mark.usefixtures("in_float64")
def test_a_cell_stands_at_its_centre_in_the_unpadded_part(rows: int, columns: int) -> None:
    positions = pixel_positions(corner(rows, columns, 3, 5)[None], 16)
    for i in range(rows):
        for j in range(columns):
            y, x = ((i + 0.5) / (rows + 1e-6), (j + 0.5) / (columns + 1e-6))
            expected = spelled_out(2 * math.pi * y, 8) + spelled_out(2 * math.pi * x, 8)
            torch.testing.assert_close(positions[0, :, i, j], torch.tensor(expected))


@pytest.mark.usefixtures("in_float64")
def test_a_padded_cell_keeps_what_the_formula_gives() -> None:
    positions = pixel_positions(corner(2, 3, 3, 5)[None], 16)
    # In row 0 the count stops at 3 of 3; in column 4 nothing counts, and 0 - 0.5 is divided by 1e-6.
    torch.testing.assert_close(positions[0, 8:, 0, 4], positions[0, 8:, 0, 2])
    expected = spelled_out(float(torch.tensor(-0.5) / 1e-6 * (2 * math.pi)), 8)
    torch.testing.assert_close(positions[0, :8, 0, 4], torch.tensor(expected))


def test_positions_are_float32_whatever_the_angles_are() -> None:
    assert sine_embedding(torch.ones(2, dtype=torch.bfloat16), 4).dtype == torch.float32
    padding = corner(2, 3, 3, 5)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pixel_positions(padding, 16), word_positions(padding[0], 8)
    torch.testing.assert_close(mixed, (pixel_positions(padding, 16), word_positions(padding[0], 8)), atol=0, rtol=0)
