"""Measures many sentences about one clip: the published way, a single- and a multi-object model. `make bench`.

All in turns in one process, on video-swin-t and 8 frames of 360x640. The published way runs the whole model for each
sentence, in float32: one is measured. A multi-object model is asked all sentences in one pass. Prints `name value`
lines: seconds, frames a second of all sentences together, how much longer eight sentences take than one, and the ratios
of the published way to the multi-object model. What the answers are worth, `jobs/demo.py --multi-steps` says.
"""

import statistics
from collections.abc import Callable
from functools import partial

import speed  # the first: it makes the rest importable
import torch
from reference.measuring import SHORT, in_turns, median_ratio
from speed import Clip, Lines, Setting

SENTENCES = (1, 2, 4, 8, 16)


def measured(setting: Setting) -> Lines:
    """Measures all ways and numbers of sentences."""
    single, multi = (Clip(setting, max(SENTENCES), multi_object=multi_object) for multi_object in (False, True))
    ways: dict[str, Callable[[], object]] = {"reference": single.published}
    for precision in setting.precisions:
        for name, clip in (("single", single), ("multi", multi)):
            ways |= {f"{name}_{SHORT[precision]}_{n}": partial(clip.ours, n, precision) for n in SENTENCES}
    with torch.inference_mode():
        taken = in_turns(ways, setting.rounds, setting.device, first=["reference"])
    lines = {f"many_{way}_seconds": statistics.median(runs) for way, runs in taken.items()}
    for precision in setting.precisions:
        short = SHORT[precision]
        for n in SENTENCES:
            lines[f"many_{short}_ratio_{n}"] = n * median_ratio(taken["reference"], taken[f"multi_{short}_{n}"])
            lines[f"many_{short}_frames_per_second_{n}"] = n * setting.frames / lines[f"many_multi_{short}_{n}_seconds"]
        over = median_ratio(taken[f"multi_{short}_8"], taken[f"multi_{short}_1"])
        lines[f"many_{short}_time_8_over_1"] = over
    return lines | {"many_time_8_over_1": lines["many_fp32_time_8_over_1"]}


if __name__ == "__main__":
    setting = speed.parsed(__doc__, frames=8, rounds=3)
    print(f"# {setting}")
    speed.report(measured(setting))
