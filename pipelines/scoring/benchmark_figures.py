"""Figures that only some benchmarks of sentences and tracks have, computed from rows; each a fraction of 1."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipelines.scoring.rows import Row, TrackRow

Figures = dict[str, float]

KINDS = {"revos": ("referring", "reasoning"), "ref-sav": ("long", "short")}
"""Kinds of sentences, of the benchmarks whose J&F is the mean of the means of two; other sentences do not count."""


def is_of_reported_kind(row: Row) -> bool:
    """Returns whether a sentence counts in the J&F of its benchmark; false for one of ReVOS that is of another kind."""
    kinds = KINDS.get(row.dataset)
    return kinds is None or (isinstance(row, TrackRow) and row.kind in kinds)


def lacks_a_kind(dataset: str, rows: Sequence[TrackRow]) -> bool:
    """Returns whether sentences of one of the `KINDS` are not there: the benchmark then has no J&F of the others."""
    return not {row.kind for row in rows}.issuperset(KINDS.get(dataset, ()))


def headline_figures(dataset: str, rows: Sequence[TrackRow]) -> Figures:
    """Returns the figures of a benchmark that stand before the plain means, or in place of those of the same name."""
    return _HEADLINES[dataset](rows) if dataset in _HEADLINES else {}


def further_figures(dataset: str, rows: Sequence[TrackRow]) -> Figures:
    """Returns the figures of a benchmark that stand after the plain means."""
    return _FURTHER[dataset](rows) if dataset in _FURTHER else {}


def _no_targets(rows: Sequence[TrackRow]) -> Figures:
    """Returns how well sentences with and without target are told apart, as MeViS v2 does after GRES.

    N-acc: share of the sentences without target whose result has no pixel in any frame. T-acc: share of the others
    whose result has one. Final: the mean of J&F, N-acc and T-acc. None where one of the two kinds is not there.
    """
    without = [row for row in rows if row.attributes and not row.attributes.visible]
    having = [row for row in rows if row.attributes and row.attributes.visible]
    if not without or not having:
        return {}
    n_acc, t_acc = _mean([not row.found for row in without]), _mean([row.found for row in having])
    return {
        "N-acc": n_acc,
        "T-acc": t_acc,
        "Final": (_jf(rows) + n_acc + t_acc) / 3,
        "J&F with target": _jf(having),
        "J&F without target": _jf(without),
    }


def _long_rvos(rows: Sequence[TrackRow]) -> Figures:
    """Returns tIoU and vIoU of all sentences, and the figures of each kind."""
    found: Figures = {}
    for kind, some in {"": rows, **_by_kind(rows)}.items():
        found |= {f"J&F {kind}": _jf(some)} if kind else {}
        found |= {
            f"{figure} {kind}".strip(): _mean([value for row in some if (value := getattr(row, name)) is not None])
            for figure, name in (("tIoU", "t_iou"), ("vIoU", "v_iou"))
        }
    return found


def _mean_of_kinds(*kinds: str) -> Callable[[Sequence[TrackRow]], Figures]:
    """Returns a function that computes J&F, J and F as the mean of the means of some kinds, if all are there."""

    def compute(rows: Sequence[TrackRow]) -> Figures:
        groups = _by_kind(rows)
        if any(kind not in groups for kind in kinds):
            return {}
        j, f = (
            _mean([_rounded_mean(getattr(row, name) for row in groups[kind]) for kind in kinds]) for name in ("j", "f")
        )
        return {"J&F": (j + f) / 2, "J": j, "F": f}

    return compute


def _kinds(rows: Sequence[TrackRow]) -> Figures:
    """Returns J&F and robustness of each kind, and the mean robustness of the `KINDS`, if all are there."""
    found: Figures = {}
    robust: Figures = {}
    for kind, some in _by_kind(rows).items():
        found[f"J&F {kind}"] = (_rounded_mean(row.j for row in some) + _rounded_mean(row.f for row in some)) / 2
        values = [row.robustness for row in some if row.robustness is not None]
        robust |= {f"robustness {kind}": _rounded_mean(values)} if values else {}
    names = [f"robustness {kind}" for kind in KINDS[rows[0].dataset]]
    mean = {"robustness": _mean([robust[name] for name in names])} if robust.keys() >= set(names) else {}
    return found | mean | robust


def _vots(rows: Sequence[TrackRow]) -> Figures:
    """Returns the track's quality: J of the annotated frames of a sequence, weighted by the length of the sequence."""
    sequences: dict[str, list[TrackRow]] = {}
    for row in rows:
        sequences.setdefault(row.video, []).append(row)
    scores = [np.average([row.j for row in some], weights=[row.frames for row in some]) for some in sequences.values()]
    return {"quality": float(np.average(scores, weights=[some[0].length for some in sequences.values()]))}


_HEADLINES: dict[str, Callable[[Sequence[TrackRow]], Figures]] = {
    **{dataset: _mean_of_kinds(*kinds) for dataset, kinds in KINDS.items()},
    "vots": _vots,
}
_FURTHER: dict[str, Callable[[Sequence[TrackRow]], Figures]] = {
    "mevis-v2": _no_targets,
    "long-rvos": _long_rvos,
    "revos": _kinds,
    "ref-sav": _kinds,
}


def _by_kind(rows: Sequence[TrackRow]) -> dict[str, list[TrackRow]]:
    groups: dict[str, list[TrackRow]] = {}
    for row in rows:
        groups.setdefault(row.kind or "other", []).append(row)
    return dict(sorted(groups.items()))


def _jf(rows: Sequence[TrackRow]) -> float:
    return (_mean([row.j for row in rows]) + _mean([row.f for row in rows])) / 2


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _rounded_mean(values: Iterable[float]) -> float:
    """Returns the mean of values that are rounded to 0.01 %, as ReVOS and Ref-SAV round them (parity)."""
    return _mean([round(100 * value, 2) for value in values]) / 100
