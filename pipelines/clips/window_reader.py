"""The read task of the training stream: from the samples of a window to their compressed frames and drawn clips."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.clip import ClipParams, retarget, sample_params
from pipelines.clips.sample_reader import FoundSample, RowGroup, sample_of, sibling_samples
from pipelines.clips.sample_table import SampleRef
from pipelines.clips.sampling import clip_rng, draw_sentences
from pipelines.clips.window import Window
from pipelines.files import Folder


def read_window(item: dict[str, Any], *, reader: "WindowReader") -> Iterator[dict[str, Any]]:
    """Yields the rows of the window in `item["window"]`, for Ray Data."""
    # Ray pickles ClipParams and would warn about it in every task.
    logging.getLogger("ray.data._internal.tensor_extensions.arrow").setLevel(logging.ERROR)
    return reader.rows(Window.from_bytes(item["window"]))


@dataclass(frozen=True, slots=True)
class WindowReader:
    """Reader of windows: all that a read task needs beside its window.

    Args:
        parts: each prepared folder, and the recipe of its clips.
        seed, epoch: of all random decisions.
        sentences_per_clip, varied: as in `TrainData`.
    """

    parts: tuple[tuple[Folder, ClipRecipe], ...]
    seed: int
    epoch: int
    sentences_per_clip: int
    varied: bool

    def rows(self, window: Window) -> Iterator[dict[str, Any]]:
        """Yields the compressed samples of a window, step by step: one row for `decode_row` each.

        Each row group is opened once, when its first sample is due, and released at once. Of its rows, those of a few
        frames wait as they are. All samples of longer ones are drawn, and wait with no more than the frames they need.
        So memory holds one row group, and some frames.
        """
        slots = window.slots_of_row_groups()
        waiting: dict[int, Callable[[], dict[str, Any]]] = {}
        for slot, (step, lane, sample) in enumerate(window):
            if sample is None:
                yield _empty_row(step, lane)
                continue
            if slot not in waiting:
                waiting |= self._read_group(window, slots[window.row_group[window.row[slot]]])
            yield _empty_row(step, lane) | waiting.pop(slot)()

    def _read_group(self, window: Window, slots: list[int]) -> dict[int, Callable[[], dict[str, Any]]]:
        """Returns functions that draw the samples of some slots, which are all of one row group."""
        samples = {slot: sample for slot in slots if (sample := window.sample(slot)) is not None}
        first = samples[slots[0]]
        folder, recipe = self.parts[first.part]
        group = RowGroup.read(folder, first.file, first.row_group)
        draws: dict[int, Callable[[], dict[str, Any]]] = {}
        singles: dict[int, RowGroup] = {}
        for slot, sample in samples.items():
            untrainable = window.untrainable.get(int(window.row[slot]), ())
            if group.frame_count(sample.row) > recipe.length:
                drawn = self._drawn(group, sample, untrainable)
                draws[slot] = partial(dict, drawn)
                continue
            if sample.row not in singles:
                singles[sample.row] = group.single(sample.row)
            draws[slot] = partial(self._drawn, singles[sample.row], replace(sample, row=0), untrainable)
        return draws

    def _drawn(self, group: RowGroup, sample: SampleRef, untrainable: tuple[int, ...]) -> dict[str, Any]:
        """Returns the compressed frames of one clip, or why the sample is dropped."""
        _, recipe = self.parts[sample.part]
        found = sample_of(group, sample, recipe)
        name = found.name
        if found.unfit:
            return {"sample": name, "dropped": found.unfit}
        # A sample that the epoch repeats is another clip each time.
        rng = clip_rng(self.seed, self.epoch, f"{name}*{sample.repeat}" if sample.repeat else name)
        drawn = sample_params(recipe, found.clip, rng)
        if drawn is None:
            return {"sample": name, "dropped": f"object in no frame after {recipe.redraws} draws"}
        numbers = [found.frames[place] for place in drawn.distinct]
        return {
            "sample": name,
            "drawn": drawn,
            "frames": [group.frame(sample.row, number) for number in numbers],
            "rles": [found.clip.rles[place] for place in drawn.distinct],
            "siblings": self._siblings(drawn, group, sample, found, untrainable, rng),
        }

    def _siblings(
        self,
        drawn: ClipParams,
        group: RowGroup,
        sample: SampleRef,
        found: FoundSample,
        untrainable: tuple[int, ...],
        rng: np.random.Generator,
    ) -> list[tuple[ClipParams, list[str | None]]]:
        """Returns other sentences of the video for the same frames, with the tracks of their objects."""
        _, recipe = self.parts[sample.part]
        sentences = draw_sentences(self.sentences_per_clip, rng) if self.varied else self.sentences_per_clip
        if sentences == 1:
            return []
        others = sibling_samples(group, sample, found, untrainable, sentences - 1, rng, spread=self.varied)
        retargeted = [(retarget(drawn, recipe, other), other) for other in others]
        return [(one, [other.rles[place] for place in drawn.distinct]) for one, other in retargeted if one is not None]


def _empty_row(step: int, lane: int) -> dict[str, Any]:
    return {
        "step": step,
        "lane": lane,
        "sample": "",
        "dropped": "",
        "drawn": None,
        "frames": [],
        "rles": [],
        "siblings": [],
    }
