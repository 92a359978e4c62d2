"""Validation during training: the workers divide the videos, predict and score them; rank 0 gathers the scores."""

import json
import logging
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.distributed as dist

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import inference_protocol
from pipelines.manifest import WITHHELD, Manifest, read_manifest
from pipelines.scoring.score import metric_name, scoring_protocol
from pipelines.scoring.summary import data_name
from pipelines.training.checkpoints import step_name
from pipelines.training.config import TrainConfig
from pipelines.training.data import holdout
from pipelines.training.validation_rows import RowRef, partition_by_cost
from pipelines.training.validation_set import SetResult, ValidSet, result_of, score_rows
from sgmg.config import Precision
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_SCORES = "scores"
"""Folder of a run with a file of figures for each step at which it was scored."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Results of a validation, one of each set."""

    sets: tuple[SetResult, ...]

    @property
    def score(self) -> float | None:
        """Mean of the sets' main figures, which checkpoints are compared by; None if a set has no score."""
        if any(one.no_score for one in self.sets):
            return None
        return sum(one.figures[one.main] for one in self.sets) / len(self.sets)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by their names in MLflow: valid/<figure>; of several sets valid/<set>/<figure>, and valid/mean."""
        found = {
            f"{self._place(one)}/{name}": value
            for one in self.sets
            for name, value in {**one.figures, "videos_lost": float(one.videos_lost)}.items()
        }
        if len(self.sets) > 1 and self.score is not None:
            found["valid/mean"] = self.score
        return found

    def pictures(self, step: int) -> dict[str, bytes]:
        """Returns the PNGs of all sets, scored after a step, by their paths in MLflow."""
        return {
            f"{self._place(one)}/{step_name(step)}/{name}.png": png
            for one in self.sets
            for name, png in one.pictures.items()
        }

    @property
    def text(self) -> str:
        """The score and what it is the mean of, or why there is none."""
        if self.score is None:
            return "; ".join(f"{one.name}: {one.no_score}" for one in self.sets if one.no_score)
        if len(self.sets) == 1:
            return f"{self.sets[0].main} {self.score:.4f}"
        parts = ", ".join(f"{one.name} {one.main} {one.figures[one.main]:.4f}" for one in self.sets)
        return f"{self.score:.4f}, the mean of {parts}"

    def _place(self, one: SetResult) -> str:
        return "valid" if len(self.sets) == 1 else f"valid/{one.name}"


@dataclass(frozen=True, slots=True)
class Validation:
    """Sets that a run is scored on."""

    sets: tuple[ValidSet, ...]
    short_side: int  # pixels; 0: as published

    @property
    def scored_on(self) -> str:
        """The sets and the size of their frames; scores compare where these are the same."""
        sets = ", ".join(f"{one.name} ({len(one.rows)} videos, {_names_digest(one)})" for one in self.sets)
        return f"{sets}; short side {self.short_side or 'as published'}"

    def score(
        self, model: SgMg, tokenizer: Tokenizer, device: torch.device, precision: Precision, rank: int, world: int
    ) -> ValidationResult | None:
        """Scores the videos of this rank with the current model. Returns the results on rank 0, None on the others.

        What cannot be read or used is part of the result, never an error: every rank comes to the exchange of results,
        and a restart would meet the same data.
        """
        predictors = [
            Predictor(
                model,
                tokenizer,
                inference_protocol(one.dataset, self.short_side or None),
                device=device,
                precision=precision,
            )
            for one in self.sets
        ]
        parts = [
            score_rows(partition_by_cost(one.rows, world)[rank], predictor)
            for one, predictor in zip(self.sets, predictors, strict=True)
        ]
        gathered = [parts]
        if world > 1:
            gathered = [[] for _ in range(world)]
            dist.all_gather_object(gathered, parts)
        if rank:
            return None
        return ValidationResult(
            tuple(
                result_of(one, of_set, predictor)
                for one, of_set, predictor in zip(self.sets, zip(*gathered, strict=True), predictors, strict=True)
            )
        )


def validation_of(config: TrainConfig) -> Validation | None:
    """Returns the sets that a run is scored on; None if the config asks for none.

    There is one for each dataset and split, and another where the data of that layout were drawn.

    Raises:
        JobError: a set has no video with truth.
        ValueError: there are no scores for a dataset.
        FileNotFoundError: a folder was not prepared.
    """
    if not config.valid and not config.holdout:
        return None
    if config.valid and config.holdout:
        raise JobError("--valid and --holdout both choose what is scored. Give one of them.")
    held_out = {Folder(uri).uri: videos for uri, videos in holdout(config).items()}
    folders = [Folder(path) for path in config.valid] or [Folder(uri) for uri in held_out]
    by_set: defaultdict[tuple[str, bool, str], list[tuple[Folder, Manifest]]] = defaultdict(list)
    for folder in folders:
        manifest = read_manifest(folder)
        scoring_protocol(manifest.dataset)  # raises if there is none
        by_set[manifest.dataset, manifest.synthetic, manifest.split].append((folder, manifest))
    sets = []
    for (dataset, synthetic, split), opened in by_set.items():
        rows = [ref for folder, manifest in opened for ref in _labelled(folder, manifest, held_out.get(folder.uri))]
        if not rows:
            raise JobError(f"{', '.join(folder.uri for folder, _ in opened)}: no video has a truth to score by.")
        name = re.sub(r"[^\w.-]", "_", f"{data_name(dataset, synthetic=synthetic)}-{metric_name(split)}")
        sets.append(ValidSet(name, dataset, tuple(rows)))
    if len(sets) > 1:
        names = ", ".join(f"{one.name} ({len(one.rows)} videos)" for one in sets)
        log.info("the best checkpoint is the one with the highest mean of the main figures of %s", names)
    return Validation(tuple(sets), config.valid_short_side)


def _labelled(folder: Folder, manifest: Manifest, videos: frozenset[str] | None) -> list[RowRef]:
    """Returns the rows of a folder with truth; of some videos, if they are given."""
    found = []
    for shard in manifest.shards:
        for number, group in enumerate(shard.row_groups):
            for row, info in enumerate(group):
                # A crowd can be scored, though not learned from.
                labelled = info.expressions - list((info.untrainable or {}).values()).count(WITHHELD)
                if labelled and (videos is None or info.video in videos):
                    work = info.frames * info.expressions
                    found.append(RowRef(folder, shard.file, number, row, info.video, work))
    return found


def _names_digest(one: ValidSet) -> str:
    """Returns a checksum of the names of a set's videos, in hexadecimal."""
    names = "\n".join(sorted(row.video for row in one.rows))
    return f"{zlib.crc32(names.encode()):08x}"


def read_scores(run: Folder, scored_on: str) -> dict[int, float | None]:
    """Returns the score that checkpoints are compared by, of every step at which the run was scored.

    It is None where there was no score.

    Args:
        run: the run's folder.
        scored_on: of the `Validation`; the scores on anything else are left out.
    """
    scores = [json.loads(run.read(f"{_SCORES}/{name}")) for name in run.names(_SCORES, suffix=".json")]
    return {one["step"]: one["score"] for one in scores if one.get("scored_on") == scored_on}


def write_score(run: Folder, step: int, result: ValidationResult, scored_on: str) -> None:
    """Writes the score of a step and the figures of each set, for restarts; also if there is no score."""
    sets = {
        one.name: {"main": one.main, "figures": dict(one.figures), "videos_lost": one.videos_lost}
        | ({"no_score": one.no_score} if one.no_score else {})
        for one in result.sets
    }
    score = {"step": step, "score": result.score, "scored_on": scored_on, "sets": sets}
    run.write(f"{_SCORES}/{step_name(step)}.json", (json.dumps(score, indent=2) + "\n").encode())
