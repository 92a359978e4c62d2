"""Credentials in URIs: they open stores, and nobody sees them."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys

import pytest

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.safety.secrets import (
    VARIABLE,
    check_credentials,
    configure_logging,
    keep_credentials,
    redacted,
    redacted_uri,
    redacted_values,
    with_credentials,
)
from s3_server import S3Server


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@bucket/a b/*.mp4?region=eu", "s3://REDACTED@bucket/a b/*.mp4?region=eu"),
        ("--out=s3://KEY@bucket", "--out=s3://REDACTED@bucket"),
        ("s3://KEY:se/cr+et@bucket/a", "s3://REDACTED@bucket/a"),
        ("s3://KEY:123/cret@bucket/a", "s3://REDACTED@bucket/a"),
        (
            "s3://b/a?region=eu&access_key=K&secret_key=a/b+c&session_token=T==",
            "s3://b/a?region=eu&access_key=REDACTED&secret_key=REDACTED&session_token=REDACTED",
        ),
        ("https://b/a.zip?X-Amz-Credential=K%2F1&X-Amz-Signature=f", "https://b/a.zip?X-Amz-Credential=REDACTED&X-Amz-Signature=REDACTED"),
        ("abfs://account:key/==@account/x", "abfs://REDACTED@account/x"),
        ("API request to http://me:pass@host:5000/api failed", "API request to http://REDACTED@host:5000/api failed"),
        ("postgresql+psycopg2://me:p@ss:w@host:5432/mlflow", "postgresql+psycopg2://REDACTED@host:5432/mlflow"),
        ("one s3://a:b@c/d, two s3://e:f@g/h.", "one s3://REDACTED@c/d, two s3://REDACTED@g/h."),
        ('{"raw": "s3://a:b@c/d", "mail": "x@y"}', '{"raw": "s3://REDACTED@c/d", "mail": "x@y"}'),
    ],
)  # fmt: skip
def test_credentials_are_replaced_in_any_text(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mysql+pymysql://me:pa'ss@host/mlflow", "mysql+pymysql://REDACTED@host/mlflow"),
        ('s3://KEY:a<b"c>d@bucket/x', "s3://REDACTED@bucket/x"),
        ("s3://b/x?access_key=K&secret_key=a'b", "s3://b/x?access_key=REDACTED&secret_key=REDACTED"),
        ("s3://bucket/it's @ home", "s3://bucket/it's @ home"),
        ("s3://b/x?secret_key=S:0.7", "s3://b/x?secret_key=REDACTED:0.7"),
    ],
)
def test_a_uri_that_stands_alone_may_hold_what_would_end_it_in_a_text(uri: str, shown: str) -> None:
    assert (redacted_uri(uri), keep_credentials([uri])) == (shown, [shown])
    if shown != uri:
        assert with_credentials(shown) == uri


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b:c?region=eu&scheme=http",
        "http://host:5000/a@b",
        "http://[::1]:5000/a@b",
        "gs://anonymous@bucket/a",
        "abfs://container@account.dfs.core.windows.net/a",
        "sqlite:////folder/a@b.db",
        "file:///folder/a@b",
        "/folder/what?key=3.mp4",
        "an address: me@host, and a:b@c",
        '{"a":"s3://bucket","b":"x@y"}',
        "mlflow:0123/best",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text


def test_values_are_redacted_wherever_they_stand() -> None:
    values = {"s3://a:b@c": ["s3://a:b@c/d", 1, None, {"x": ("s3://a:b@c/e",)}]}
    assert redacted_values(values) == {"s3://REDACTED@c": ["s3://REDACTED@c/d", 1, None, {"x": ["s3://REDACTED@c/e"]}]}


def test_what_was_taken_out_is_put_back_for_all_that_lies_in_the_same_store() -> None:
    given = ["s3://KEY:a/b@bucket/x?region=eu", "--data", "s3://b?access_key=K&secret_key=a+b", "gs://b/x"]
    shown = keep_credentials(given)
    assert shown == [redacted(text) for text in given]
    assert with_credentials("s3://REDACTED@bucket/y/z") == "s3://KEY:a%2Fb@bucket/y/z"
    assert with_credentials(shown[2]) == "s3://b?access_key=K&secret_key=a%2Bb"
    assert with_credentials("s3://bucket/y") == "s3://bucket/y"


def test_a_share_of_a_folder_is_no_part_of_its_secret() -> None:
    data, weight = keep_credentials(["s3://b/x?access_key=K&secret_key=a:b", "s3://b/x?access_key=K&secret_key=a:b:.7"])
    assert weight == f"{data}:.7"
    assert with_credentials(data) == "s3://b/x?access_key=K&secret_key=a:b"


def test_processes_that_are_started_know_them_too() -> None:
    (shown,) = keep_credentials(["s3://KEY:SECRET@bucket/x"])
    program = f"from pipelines.safety.secrets import with_credentials; print(with_credentials({shown!r}))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert said.stdout == "s3://KEY:SECRET@bucket/x\n"


def test_credentials_may_change_between_two_starts_but_not_within_one() -> None:
    keep_credentials(["s3://a:b@bucket/x"])
    keep_credentials(["s3://a:c@bucket/x", "s3://a:c@bucket/y"])
    assert with_credentials("s3://REDACTED@bucket/x") == "s3://a:c@bucket/x"
    with pytest.raises(JobError, match="s3://bucket is given with two different credentials"):
        keep_credentials(["s3://a:b@bucket/x", "s3://a:c@bucket/y"])
    with pytest.raises(JobError, match="s3://bucket is given with two different credentials"):
        keep_credentials(["s3://a:b@bucket/x"], replace=False)
    # The same name at another endpoint is another store.
    keep_credentials(["s3://a:d@bucket/x?endpoint_override=host:9000&scheme=http"], replace=False)
    assert with_credentials("s3://REDACTED@bucket/x") == "s3://a:c@bucket/x"


def test_where_they_are_missing_it_is_said_which_flag_to_give_again() -> None:
    with pytest.raises(JobError, match=r"The credentials of s3://REDACTED@bucket/x are not known here\. Write KEY"):
        with_credentials("s3://REDACTED@bucket/x")
    with pytest.raises(JobError, match=r"--out s3://b\?secret_key=REDACTED has no credentials: .* Give --out again\."):
        check_credentials("--out", "s3://b?secret_key=REDACTED")
    check_credentials("--out", "s3://bucket/x")


def test_mlflows_own_variable_opens_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:p@ss@host/mlflow")
    assert with_credentials("postgresql://REDACTED@host/mlflow") == "postgresql://me:p%40ss@host/mlflow"


def test_a_folder_is_opened_with_them_here_and_in_a_worker(s3_server: S3Server) -> None:
    given = s3_server.uri("secret").replace("s3://", "s3://CANARYKEY:CANARY/SECRET@")
    (shown,) = keep_credentials([given])
    s3_server.users()
    for uri in (given.replace("CANARY/", "CANARY%2F"), shown):  # as the library takes it, and as the jobs do
        folder = pickle.loads(pickle.dumps(Folder(uri)))
        folder.write("a.json", b"1")
        assert folder.read("a.json") == b"1"
        assert s3_server.users() == {"CANARYKEY"}
        assert "CANARY" not in repr(folder)
        assert repr(folder) == f"Folder(uri={shown!r})"
    assert "CANARY" not in Folder(shown).uri_of("a.json")


def test_options_of_a_uri_may_be_credentials_too(s3_server: S3Server) -> None:
    given = s3_server.uri("options").replace("?", "?access_key=CANARYKEY&secret_key=a/b+c&")
    (shown,) = keep_credentials([given])
    s3_server.users()
    Folder(shown).write("a.json", b"1")
    assert s3_server.users() == {"CANARYKEY"}


def test_an_error_does_not_quote_them() -> None:
    with pytest.raises((OSError, ValueError)) as raised:
        Folder("ftp://me:CANARY@host/x").has("a")
    assert "CANARY" not in str(raised.value)


def test_log_lines_and_their_tracebacks_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging()
    try:
        raise OSError("s3://a:CANARY@b/c")
    except OSError:
        logging.getLogger("x").exception("cannot read %s", "s3://a:CANARY@b/d")
    assert "CANARY" not in stream.getvalue()
    assert "s3://REDACTED@b/c" in stream.getvalue()
    assert "s3://REDACTED@b/d" in stream.getvalue()


def test_kept_credentials_are_plain_json() -> None:
    keep_credentials(["s3://a:b@bucket/x"])
    assert json.loads(os.environ[VARIABLE]) == {"s3://bucket": {"": "a:b"}}
