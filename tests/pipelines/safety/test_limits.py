"""The table of limits in the documentation names those of the code."""

import re

import pytest

from pack import ROOT
from pipelines.safety import limits
from pipelines.safety.limits import MAX_PIXELS, check_pixels


def test_every_limit_stands_in_the_documentation() -> None:
    documented = set(re.findall(r"\bMAX_\w+", (ROOT / "docs/limits.md").read_text()))
    assert documented == {name for name in vars(limits) if name.startswith("MAX_")}


def test_a_size_is_whole_numbers_of_at_most_so_many_pixels() -> None:
    check_pixels(1, MAX_PIXELS)
    for height, width in ((0, 5), (-1, -1), (2, MAX_PIXELS), (1.0, 1), (True, 5), (None, None), ("1", 1)):
        with pytest.raises(ValueError, match="are not whole numbers of 1 to"):
            check_pixels(height, width)
