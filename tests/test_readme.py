"""README's Python runs as it is printed."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_in_the_order_they_are_read() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    masks, found = names["masks"], names["found"]
    # The second example is what the Segmenter of the first does inside, but for the resizing.
    assert isinstance(names["scores"], np.ndarray)
    assert masks.shape[:2] == found.shape[:2] == (2, 4)  # pyright: ignore[reportAttributeAccessIssue]


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (Path(__file__).resolve().parents[1] / path).exists(), path
