"""Validation during training: the workers divide the videos, predict and score them; rank 0 gathers the scores."""

import heapq
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from pipelines.errors import BadItem, JobError
from pipelines.files import Folder
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import inference_protocol
from pipelines.manifest import WITHHELD, read_manifest, read_rows
from pipelines.records import Record, record_of
from pipelines.scoring.cases import draw_case, worst_and_best
from pipelines.scoring.score import Row, figures, metric_name, score_video, truth_of
from pipelines.training.checkpoints import step_name
from pipelines.training.config import TrainConfig
from pipelines.training.data import holdout
from sgmg.config import Precision
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_SCORES = "scores"
"""Folder of a run with a file of figures for each step at which it was scored."""
PICTURES = 2
"""Number of worst, and of best, cases that are drawn at each validation."""
_MAIN: dict[str, str] = dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "overall_iou")
"""Figure that the best checkpoint is chosen by, for datasets where it is not the first."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """Reference to one row of prepared data; `work` counts its pairs of frame and expression."""

    folder: Folder
    file: str
    row_group: int
    row: int
    work: int


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Figures of a validation, and PNGs by name. `main` names the figure that checkpoints are compared by."""

    figures: Mapping[str, float]
    main: str
    pictures: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Validation:
    """Rows that are scored: of one dataset, and with truth."""

    dataset: str
    rows: tuple[RowRef, ...]
    short_side: int  # pixels; 0: as published

    def score(
        self, model: SgMg, tokenizer: Tokenizer, device: torch.device, precision: Precision, rank: int, world: int
    ) -> ValidationResult | None:
        """Scores the videos of this rank with the current model. Returns the figures on rank 0, None on the others."""
        protocol = inference_protocol(self.dataset, self.short_side or None)
        predictor = Predictor(model, tokenizer, protocol, device=device, precision=precision)
        rows: list[Row] = []
        lost = 0
        for ref in partition_by_cost(self.rows, world)[rank]:
            record = _read(ref)
            try:
                rows += score_video(truth_of(record), predictor.predict(record))
            except BadItem as error:
                log.warning("not scored: %s", error)
                lost += 1
        gathered: list[tuple[list[Row], int]] = [(rows, lost)]
        if world > 1:
            gathered = [([], 0)] * world
            dist.all_gather_object(gathered, (rows, lost))
        if rank:
            return None
        all_rows = [row for some, _ in gathered for row in some]
        overall = figures(all_rows)
        main = _MAIN.get(self.dataset, next(iter(overall)))
        named = {metric_name(name): value for name, value in overall.items()}
        named["videos_lost"] = float(sum(count for _, count in gathered))
        return ValidationResult(named, metric_name(main), self._pictures(all_rows, predictor))

    def _pictures(self, rows: Sequence[Row], predictor: Predictor) -> dict[str, bytes]:
        """Draws the worst and the best expressions; predicts them again, as predictions are not kept."""
        cases = worst_and_best(rows, PICTURES)
        videos = {case.row.video for case in cases}
        drawn: dict[str, bytes] = {}
        for ref in self.rows:
            if not videos:
                break
            record = _read(ref)
            if record.video not in videos:
                continue
            videos.discard(record.video)
            predictions, truth = predictor.predict(record), truth_of(record)
            frames = dict(zip(record.frame_names, record.frames, strict=True))
            drawn |= {
                re.sub(r"\.png$", "", case.name): draw_case(case.row, truth, predictions, frames)
                for case in cases
                if case.row.video == record.video
            }
        return drawn


def validation_of(config: TrainConfig) -> Validation | None:
    """Returns the rows that a run is scored on; None if the config asks for no validation.

    Raises:
        JobError: the folders hold different datasets, or no video with truth.
        FileNotFoundError: a folder was not prepared.
    """
    if not config.valid and not config.holdout:
        return None
    if config.valid and config.holdout:
        raise JobError("--valid and --holdout both choose what is scored. Give one of them.")
    held_out = {Folder(uri).uri: videos for uri, videos in holdout(config).items()}
    folders = [Folder(path) for path in config.valid] or [Folder(uri) for uri in held_out]
    datasets, rows = [], []
    for folder in folders:
        manifest = read_manifest(folder)
        datasets.append(manifest.dataset)
        for shard in manifest.shards:
            for number, group in enumerate(shard.row_groups):
                for row, info in enumerate(group):
                    # A crowd can be scored, though not learned from.
                    labelled = info.expressions - list((info.untrainable or {}).values()).count(WITHHELD)
                    if labelled and (config.valid or info.video in held_out[folder.uri]):
                        rows.append(RowRef(folder, shard.file, number, row, info.frames * info.expressions))
    if len(set(datasets)) > 1:
        raise JobError(
            f"Scores of {', '.join(sorted(set(datasets)))} cannot be compared as one. Give --valid of one dataset."
        )
    if not rows:
        raise JobError(f"{', '.join(folder.uri for folder in folders)}: no video has a truth to score by.")
    return Validation(datasets[0], tuple(rows), config.valid_short_side)


def partition_by_cost(rows: Sequence[RowRef], world: int) -> list[list[RowRef]]:
    """Divides rows over the ranks: from the longest on, each goes to the rank with the least work."""
    shares: list[list[RowRef]] = [[] for _ in range(world)]
    loads = [(0, rank) for rank in range(world)]
    for ref in sorted(rows, key=lambda one: -one.work):
        load, rank = heapq.heappop(loads)
        shares[rank].append(ref)
        heapq.heappush(loads, (load + ref.work, rank))
    return shares


def _read(ref: RowRef) -> Record:
    return record_of(read_rows(ref.folder, ref.file, ref.row_group)[ref.row])


def read_scores(run: Folder) -> dict[int, float]:
    """Returns the figure that checkpoints are compared by, of every step at which the run was scored."""
    scores = [json.loads(run.read(f"{_SCORES}/{name}")) for name in run.names(_SCORES, suffix=".json")]
    return {one["step"]: one["figures"][one["main"]] for one in scores}


def write_score(run: Folder, step: int, result: ValidationResult) -> None:
    """Writes the figures of a step, for restarts."""
    score = {"step": step, "main": result.main, "figures": dict(result.figures)}
    run.write(f"{_SCORES}/{step_name(step)}.json", (json.dumps(score, indent=2) + "\n").encode())
