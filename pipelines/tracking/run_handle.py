"""The handle of an MLflow run, for workers too: MLflow, whose import takes seconds, is imported where it is used."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from pipelines.config_io import to_plain
from pipelines.files import Folder
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.safety.secrets import redacted, with_credentials
from pipelines.tracking.params import cut
from pipelines.tracking.reasons import reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPOOL, ARTIFACTS = "mlflow_spool", "artifacts"
"""Folders in the storage: metrics of a run that wait for MLflow, and MLflow's artifacts."""
_NOTE, _OUR_NOTE = "mlflow.note.content", "sgmg.description"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunHandle:
    """Handle of an MLflow run; plain values, so that it can be sent to workers.

    Attributes:
        uri: of the store, without credentials.
        continued: whether the run existed before.
    """

    uri: str
    experiment_id: str
    run_id: str
    continued: bool

    def client(self) -> "MlflowClient":
        """Returns a client of the store that holds the run."""
        return open_client(self.uri)

    def log_datasets(self, folders: Iterable[Folder], context: Literal["training", "validation"]) -> None:
        """Logs prepared folders as inputs of the run, by fingerprint, and their manifests as artifacts.

        Raises:
            FileNotFoundError: a folder holds no manifest.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

        client = self.client()
        for folder in folders:
            manifest = read_manifest(folder)
            name = f"{manifest.title}-{manifest.split}"
            dataset = Dataset(
                name=name,
                digest=manifest.source_fingerprint[:MAX_DATASET_DIGEST_SIZE],
                source_type=folder.scheme or "local",
                source=json.dumps({"uri": redacted(folder.uri)}),
                profile=json.dumps(
                    {**manifest.counts, "dropped": sum(manifest.dropped.values()), "quarantined": manifest.quarantined}
                    | {"fingerprint": manifest.source_fingerprint, "schema_version": manifest.schema_version}
                ),
            )
            client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
            client.log_text(
                self.run_id,
                redacted(folder.read(MANIFEST).decode()),
                f"data/{'synthetic-' * manifest.synthetic}{manifest.dataset}-{manifest.split}/{MANIFEST}",
            )

    def log_config(self, config: Any) -> None:
        """Logs the config as the artifact config.json, in the form of `config_io.write_config`."""
        text = json.dumps(to_plain(config), indent=2, ensure_ascii=False) + "\n"
        self.client().log_text(self.run_id, text, "config.json")

    def log_figures(self, figures: Mapping[str, float], seconds: float = 20) -> None:
        """Logs metrics of the whole run; tries for some seconds, and logs a warning if MLflow does not accept them."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
        trouble = retry_for(seconds, lambda: self.client().log_batch(self.run_id, metrics=metrics))
        if trouble:
            log.warning("MLflow at %s did not accept the summary of run %s: %s", self.uri, self.run_id, trouble)

    def describe(self, text: str) -> None:
        """Sets the description of the run (Markdown), unless somebody has written one of their own.

        Raises:
            MlflowException: MLflow cannot be reached.
        """
        from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

        tags = self.client().get_run(self.run_id).data.tags
        if tags.get(_NOTE, "") in ("", tags.get(_OUR_NOTE)):
            for name in (_OUR_NOTE, _NOTE):
                self.client().set_tag(self.run_id, name, cut(redacted(text), MAX_TAG_VAL_LENGTH))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", seconds: float = 20) -> None:
        """Ends the run; tries for some seconds, and logs a warning if MLflow cannot be reached."""
        trouble = retry_for(seconds, lambda: self.client().set_terminated(self.run_id, status))
        if trouble:
            log.warning(
                "MLflow at %s: run %s stays RUNNING, though it ended as %s: %s", self.uri, self.run_id, status, trouble
            )


def open_client(uri: str) -> "MlflowClient":
    """Returns a client of the store at a URI of `tracking_uri`."""
    from mlflow import MlflowClient

    move_login()
    set_up_mlflow()
    return MlflowClient(with_credentials(uri))


def move_login() -> None:
    """Moves the login in MLFLOW_TRACKING_URI to MLflow's variables for it: MLflow quotes the URI in its errors."""
    uri = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if uri.scheme in ("http", "https") and uri.username and uri.password:
        os.environ["MLFLOW_TRACKING_URI"] = uri._replace(netloc=uri.netloc.rpartition("@")[2]).geturl()
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(uri.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(uri.password)


def set_up_mlflow() -> None:
    """Makes MLflow in this process give up on a silent server after a minute instead of a quarter of an hour.

    Also keeps it from printing the traceback of each attempt at a database that cannot be written: who asks says so.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    # It would warn at each attempt; the outbox warns once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def retry_for(seconds: float, call: Callable[[], object]) -> str:
    """Calls until MLflow answers or the time is over. Returns the last error; empty if the call succeeded."""
    from mlflow.exceptions import MlflowException

    outcome = ["it does not answer"]

    def attempt() -> None:
        while time.monotonic() < end:
            try:
                call()
                outcome[0] = ""
                return
            except (MlflowException, OSError) as error:
                outcome[0] = reason_of(error)
                time.sleep(1)

    end = time.monotonic() + seconds
    thread = threading.Thread(target=attempt, daemon=True)  # a request that hangs must not hold up the job
    thread.start()
    thread.join(seconds)
    return outcome[0]
