"""Opens the predictions that jobs/evaluate.py scores: those of a run, or a submission of its dataset."""

from collections.abc import Sequence

from jobs.impl.submit import FORMATS, MASK_ZIPS
from pipelines.errors import JobError
from pipelines.files import without_options
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.safety.secrets import redacted
from pipelines.scoring.prediction_source import PredictionSource, open_predictions, open_submission
from pipelines.scoring.result_files import open_ref_sav, open_vots
from pipelines.scoring.truth_parts import TruthPart
from pipelines.session import durable_folder

_SUBMISSIONS = {
    **dict.fromkeys(("ref-youtube-vos", "ref-davis17", *MASK_ZIPS), "a zip (or folder) of PNGs"),
    "vots": "a zip (or folder) of text files",
    "ref-sav": "a file that ends in .json",
}
"""What holds the results of the datasets whose submissions are scored by prepared data."""


def prediction_source(path: str, parts: Sequence[TruthPart], flag: str) -> PredictionSource:
    """Opens predictions or, where a path is no folder of such, a submission.

    Raises:
        JobError: no submission of the dataset can be scored by this truth, or this is none.
        FileNotFoundError: the path does not exist.
        ValueError: the submission is damaged, or holds something else.
    """
    place, dataset = durable_folder(path, flag), parts[0].dataset if parts else ""
    if flag == "--predictions" or (flag == "--compare" and place.has(PREDICTIONS)):
        return open_predictions(place.uri)
    _check_submission(path, dataset, flag)
    videos = frozenset(video for part in parts for video in part.videos)
    if dataset == "vots":
        return open_vots(place.uri, videos)
    if dataset == "ref-sav":
        return open_ref_sav(place.uri)
    return open_submission(place.uri, dataset == "ref-davis17", videos)


def is_coco(submission: str, truth: Sequence[str]) -> bool:
    """Returns whether a submission is COCO results: any .json, but for the truth of Ref-SAV, whose results are one."""
    folders = [durable_folder(path, "--truth") for path in truth if not without_options(path).endswith(".json")]
    prepared = (read_manifest(folder).dataset for folder in folders if folder.has(MANIFEST))
    return without_options(submission).endswith(".json") and "ref-sav" not in prepared


def _check_submission(path: str, dataset: str, flag: str) -> None:
    """Checks that the path may be a submission that prepared data of the dataset score.

    Raises:
        JobError: there are none, or they are other files.
    """
    if dataset not in _SUBMISSIONS:
        coco = dataset in (FORMATS["coco"].datasets or ())
        results = " Its COCO results (.json) are a --submission whose --truth is the annotation file." if coco else ""
        raise JobError(
            f"{flag} {redacted(path)} is no folder of predictions, and no submission of {dataset} can be scored by "
            f"prepared data.{results} Give a folder that jobs/predict.py wrote."
        )
    if without_options(path).endswith(".json") is not (dataset == "ref-sav"):
        raise JobError(f"{flag} {redacted(path)}: results of {dataset} are {_SUBMISSIONS[dataset]}. Give such.")
