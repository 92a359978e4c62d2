"""Scores during training: videos divided over the workers, answered by the model they train, gathered once."""

import heapq
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
from pipelines.manifest import read_manifest, read_rows
from pipelines.records import Record, record_of
from pipelines.scoring.cases import draw_case, worst_and_best
from pipelines.scoring.score import Row, figures, metric_name, score_video, truth_of
from pipelines.training.config import TrainConfig
from pipelines.training.data import holdout
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PICTURES = 2
"""Worst and best cases drawn each time, so many of each."""
_MAIN: dict[str, str] = dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "overall_iou")
"""The figure by which the best checkpoint is chosen, where it is not the first."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """One row of prepared data, and how much work it is: pairs of frame and expression."""

    folder: Folder
    file: str
    row_group: int
    row: int
    work: int


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What rank 0 has in the end. `main` names the figure by which checkpoints are compared."""

    figures: Mapping[str, float]
    main: str
    pictures: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Validation:
    """What is scored: rows of one dataset whose truth is known."""

    dataset: str
    places: tuple[RowRef, ...]
    short_side: int  # pixels; 0: as published
    precision: str

    def score(
        self, model: SgMg, tokenizer: Tokenizer, device: torch.device, rank: int, world: int
    ) -> ValidationResult | None:
        """Every rank scores its videos with the model as it is; rank 0 gets the figures, the others None."""
        protocol = inference_protocol(self.dataset, self.short_side or None)
        predictor = Predictor(model, tokenizer, protocol, device=device, precision=self.precision)  # pyright: ignore[reportArgumentType]
        rows: list[Row] = []
        lost = 0
        for place in partition_by_cost(self.places, world)[rank]:
            record = _read(place)
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
        everything = [row for some, _ in gathered for row in some]
        found = figures(everything)
        main = _MAIN.get(self.dataset, next(iter(found)))
        named = {metric_name(name): value for name, value in found.items()}
        named["videos_lost"] = float(sum(count for _, count in gathered))
        return ValidationResult(named, metric_name(main), self._pictures(everything, predictor))

    def _pictures(self, rows: Sequence[Row], predictor: Predictor) -> dict[str, bytes]:
        """The worst and the best expressions, asked again: predictions are not kept."""
        wanted = worst_and_best(rows, PICTURES)
        videos = {case.row.video for case in wanted}
        drawn: dict[str, bytes] = {}
        for place in self.places:
            if not videos:
                break
            record = _read(place)
            if record.video not in videos:
                continue
            videos.discard(record.video)
            predictions, truth = predictor.predict(record), truth_of(record)
            frames = dict(zip(record.frame_names, record.frames, strict=True))
            drawn |= {
                re.sub(r"\.png$", "", case.name): draw_case(case.row, truth, predictions, frames)
                for case in wanted
                if case.row.video == record.video
            }
        return drawn


def validation_of(config: TrainConfig) -> Validation | None:
    """What a run scores itself by; None where the config asks for nothing.

    Raises:
        JobError: folders of different datasets, or none of their videos has a truth.
        FileNotFoundError: a folder was not prepared.
    """
    if not config.valid and not config.holdout:
        return None
    if config.valid and config.holdout:
        raise JobError("--valid and --holdout both name what to score by. Give one of them.")
    held_out = {Folder(uri).uri: videos for uri, videos in holdout(config).items()}
    folders = [Folder(path) for path in config.valid] or [Folder(uri) for uri in held_out]
    datasets, places = [], []
    for folder in folders:
        manifest = read_manifest(folder)
        datasets.append(manifest.dataset)
        for shard in manifest.shards:
            for number, group in enumerate(shard.row_groups):
                for row, info in enumerate(group):
                    # Without truth there is nothing to compare with; a crowd can be scored, though not learned from.
                    told = info.expressions - list((info.untrainable or {}).values()).count("truth withheld")
                    if told and (config.valid or info.video in held_out[folder.uri]):
                        places.append(RowRef(folder, shard.file, number, row, info.frames * info.expressions))
    if len(set(datasets)) > 1:
        raise JobError(
            f"Scores of {', '.join(sorted(set(datasets)))} cannot be compared as one. Give --valid of one dataset."
        )
    if not places:
        raise JobError(f"{', '.join(folder.uri for folder in folders)}: no video has a truth to score by.")
    return Validation(datasets[0], tuple(places), config.valid_short_side, config.precision)


def partition_by_cost(places: Sequence[RowRef], world: int) -> list[list[RowRef]]:
    """The places of every rank: the longest first, each to whoever has least to do."""
    hands: list[list[RowRef]] = [[] for _ in range(world)]
    loads = [(0, rank) for rank in range(world)]
    for place in sorted(places, key=lambda one: -one.work):
        load, rank = heapq.heappop(loads)
        hands[rank].append(place)
        heapq.heappush(loads, (load + place.work, rank))
    return hands


def _read(place: RowRef) -> Record:
    return record_of(read_rows(place.folder, place.file, place.row_group)[place.row])
