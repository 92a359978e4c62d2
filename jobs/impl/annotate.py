"""Annotates videos: the body of jobs/annotate.py."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ray.exceptions import RayError

from jobs.annotate import AnnotateConfig
from jobs.common.predictors import predictor_spec, resources_of, with_resources
from jobs.common.progress import track
from pipelines.annotate.formats import Written, impossible, write_formats, write_page
from pipelines.annotate.requests import FORMATS, Requests, collect_requests, delete_stale_failures
from pipelines.annotate.review import write_review
from pipelines.annotate.run import Stream, annotate_videos
from pipelines.annotate.settings import DATASET
from pipelines.annotate.summary import Progress
from pipelines.annotate.verdicts import read_verdicts
from pipelines.config_io import require_same_settings, stored_setting, write_config
from pipelines.errors import Exit, Failure, JobError, root_cause
from pipelines.files import Folder, storage_retries
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.quarantine import reasons, without_numbers, write_failures, write_quarantine
from pipelines.ledger import Ledger, read_ledger
from pipelines.manifest import QUARANTINE
from pipelines.runtime.lease import hold_lease
from pipelines.safety.secrets import keep_credentials
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.run_handle import RunHandle
from pipelines.video.listing import keep_credentials_of_lists
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


def annotate(config: AnnotateConfig) -> Exit:
    """Annotates every video that is not finished, writes the formats, and prints a summary."""
    out = durable_folder(config.out, "--out")
    config = replace(config, videos=tuple(keep_credentials(config.videos)))  # of a config that no flags were read for
    keep_credentials_of_lists(config.videos)  # before Ray starts the processes that need them
    spec = predictor_spec(config.checkpoint, config.storage, config, config.settings.protocol(config.short_side))
    start_ray(config.num_cpus)
    with hold_lease(out):
        return _annotate(config, _stream(config, spec, out))


def _annotate(config: AnnotateConfig, stream: Stream) -> Exit:
    out, made_by, only = stream.out, _made_by(stream), _to_redo(config)
    if only is not None:  # a folder has the answers to all, or those that were given again because of one table
        made_by["redo"] = f"{len(only)} answers, {hashlib.sha256(json.dumps(sorted(only)).encode()).hexdigest()[:12]}"
    require_same_settings(out, made_by, "made_by")
    config, stream = replace(config, made_by=made_by), replace(stream, fingerprint=made_by["fingerprint"])
    write_config(out, config)
    ledger = read_ledger(out, stream.fingerprint)
    requests = collect_requests(
        config.videos, config.expressions, config.text, out, ledger, _token_counter(stream.spec), config.verify, only,
    )  # fmt: skip
    for note in requests.notes:
        _log.info("%s", note)
    delete_stale_failures(out, requests.videos)
    _check_formats(config, requests, out)
    progress = Progress(len(requests.left), requests.kept)
    with _tracked(config, out) as run:
        failures = _annotate_all(config, stream, requests, ledger, progress)
        if run:
            run.log_figures(progress.figures(failures, ledger))
    _report(progress, failures, out, stream.spec.sentences_together)
    if config.review:
        print(f"{write_review(out, ledger, config.review)} answers to look at: {config.review}")
    for remark, count in _remarks(ledger, requests.videos).most_common(10):
        print(f"remarked: {count} x {remark}")
    return Exit.QUARANTINE if failures and not config.allow_failures else Exit.CLEAN


def _annotate_all(
    config: AnnotateConfig, stream: Stream, requests: Requests, ledger: Ledger, progress: Progress
) -> list[Failure]:
    """Annotates, writes the ledger and the formats, and returns all failures that are now in quarantine.

    Raises:
        JobError: an error that is not the fault of a single video.
    """
    try:
        events = annotate_videos(requests.left, stream, ledger)
        for event in track(events, len(requests.left), "video", progress.__str__, lambda: progress.videos):
            progress.count(event)
        ledger.write(stream.out)
        progress.retries += storage_retries()
        lost = [one for video in requests.videos for entry in ledger.by_video.get(video, ()) for one in entry.failures]
        write_quarantine(stream.out, lost)
        unwritten = _logged(write_formats(stream.out, ledger, config.formats, config.time_limit, config.parts))
        failures = write_quarantine(stream.out, lost)
        if "report" in config.formats:
            unwritten += _logged(write_page(stream.out, ledger))
    except RayError as error:
        _log.debug("traceback of the error below", exc_info=True)
        raise JobError(
            f"{progress}\nResults so far are kept. The run stopped because: {root_cause(error)}\n"
            f"Run the same command again to continue."
        ) from error
    if unwritten:
        said = "\n".join(f"  {one.what}: {one.error}" for one in unwritten)
        raise JobError(
            f"{progress.summary()}\nEverything is answered, but not everything is written:\n{said}\n"
            f"Run the same command again: it writes what is missing."
        )
    return failures


def _logged(written: Iterator[Written]) -> list[Written]:
    """Logs what is written, and returns what could not be."""
    unwritten: list[Written] = []
    for one in written:
        if one.error:
            unwritten.append(one)
        else:
            _log.info("written: %s", one.what)
    return unwritten


def _check_formats(config: AnnotateConfig, requests: Requests, out: Folder) -> None:
    """Checks, before anything is asked of a model, that the formats can be written.

    Raises:
        JobError: they cannot, and --allow-failures is not given.
    """
    problems = impossible(config.formats, requests.sentences)
    if problems and not config.allow_failures:
        said = "\n".join(f"  {path} {reason}" for path, reason in list(problems.items())[:10])
        raise JobError(
            f"{len(problems)} videos cannot be written as davis:\n{said}\n"
            f"Leave out davis, give fewer sentences, or give --allow-failures: these videos are left out of it then."
        )
    write_failures(out, FORMATS, [Failure(path, "format", f"it {reason}") for path, reason in problems.items()])


@contextmanager
def _tracked(config: AnnotateConfig, out: Folder) -> Iterator[RunHandle | None]:
    """Opens the MLflow run of this folder and ends it with the block; gives None with --no-track."""
    if not config.track:
        yield None
        return
    from pipelines.tracking.mlflow_run import open_run  # imports MLflow, for seconds

    run = open_run("annotate", _run_name(out), config.storage, config)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        run.finish(status)


def _stream(config: AnnotateConfig, spec: PredictorSpec, out: Folder) -> Stream:
    resources = resources_of(config)
    spec = with_resources(spec, config, resources, stored_setting(out, "made_by", "precision"))
    return Stream(out, spec, config.settings, resources, fingerprint="", time_limit=config.time_limit)


def _token_counter(spec: PredictorSpec) -> Any:
    """Returns a function that counts the tokens of a sentence with the checkpoint's tokenizer."""
    return Tokenizer.from_json(spec.tokenizer).count


def _made_by(stream: Stream) -> dict[str, Any]:
    """Returns the settings that decide the results, and their fingerprint."""
    settings = {"dataset": DATASET, **stream.spec.provenance(), **stream.settings.provenance()}
    return {**settings, "fingerprint": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()}


def _run_name(out: Folder) -> str:
    """Returns the name of the MLflow run: the folder's name, and a hash of its path that makes it unique."""
    return f"{out.name}-{hashlib.sha256(out.uri.encode()).hexdigest()[:8]}"


def _to_redo(config: AnnotateConfig) -> frozenset[tuple[str, str]] | None:
    """Returns video and expression of the answers to give again; None if all are to be given."""
    if not config.verdicts:
        return None
    return frozenset(key for key, verdict in read_verdicts(config.verdicts).items() if verdict in config.redo)


def _remarks(ledger: Ledger, videos: Collection[str]) -> Counter[str]:
    """Counts what was decided in reading the videos, whatever the numbers in it."""
    of_videos = [{one.remark for one in ledger.by_video.get(video, ()) if one.remark} for video in videos]
    return Counter(without_numbers(remark) for remarks in of_videos for remark in remarks)


def _report(progress: Progress, failures: Sequence[Failure], out: Folder, together: int) -> None:
    print(progress.summary())
    if together > 1:
        print(f"up to {together} sentences of a video were asked together")
    print(f"results: {out.path()}")
    if failures:
        print(f"in quarantine: {len(failures)} (all of them in {out.path(QUARANTINE)})")
        for count, stage, reason in reasons(failures)[:10]:
            print(f"  {count} x {stage}: {reason}")
