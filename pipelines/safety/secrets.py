"""Credentials in URIs: replaced by REDACTED where they come in, kept in the environment, put back to open a store.

So no config, table, log or message can hold them: the URI that is written anywhere is one without.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipelines.errors import JobError

REDACTED = "REDACTED"
"""What stands in a URI for a user and password, and for the value of a secret option."""
VARIABLE = "SGMG_CREDENTIALS"
"""Environment variable that keeps the credentials of URIs, for this process and those that it starts."""

Credentials = dict[str, str]
"""Credentials of one store, percent-encoded: user and password by the name "", options by their own names."""

_NAME = r"[\w.-]*(?:key|keyid|secret|token|password|passwd|pwd|signature|credential)s?|sig"


class _Patterns(NamedTuple):
    """Patterns of the credentials in URIs."""

    login: re.Pattern[str]
    option: re.Pattern[str]

    @classmethod
    def of(cls, ends: str) -> "_Patterns":
        """Returns the patterns for URIs that some characters end, as blanks do."""
        # A password may hold a raw slash, as half of AWS's do.
        login = rf"(?<=://)([^\s/?#{ends}]+|[^\s/@:{ends}?\[]+:[^\s@{ends}]*)@"
        # A share of --weights behind a URI, such as :0.7, is no part of its last option.
        option = rf"([?&])({_NAME})=((?:(?!:\d*\.?\d+\Z)[^&\s{ends}])*)"
        return cls(re.compile(login), re.compile(option, re.IGNORECASE))


_PORT_AND_PATH = re.compile(r"[^/:]+:\d{1,5}[/?]")
_IN_TEXT, _ALONE = _Patterns.of("\"'<>"), _Patterns.of("")
_STORE = re.compile(r"(\w[\w+.-]*)://(?:[^/?]*@)?([^/?]*)(?:.*[?&]endpoint_override=([^&\s]*))?", re.DOTALL)


def redacted(text: str) -> str:
    """Returns a text with REDACTED in the place of the credentials of its URIs.

    >>> redacted("cannot read s3://KEY:SECRET@bucket/a?region=eu&session_token=abc now")
    'cannot read s3://REDACTED@bucket/a?region=eu&session_token=REDACTED now'
    >>> redacted("postgresql://user:p@ss@host:5432/mlflow"), redacted("s3://bucket/a@b?region=eu")
    ('postgresql://REDACTED@host:5432/mlflow', 's3://bucket/a@b?region=eu')
    """
    return _taken_out(text)[0]


def redacted_uri(uri: str) -> str:
    """Returns a URI that stands alone as `redacted` does; it may hold quotes, which would end it in a text.

    >>> redacted_uri("mysql+pymysql://me:pa'ss@host/mlflow")
    'mysql+pymysql://REDACTED@host/mlflow'
    """
    return _taken_out(uri, _ALONE)[0]


def redacted_values(value: Any) -> Any:
    """Returns plain values (lists, mappings, texts and others) with every text `redacted`.

    >>> redacted_values({"out": "s3://K:S@b/x", "sides": (360, 640)})
    {'out': 's3://REDACTED@b/x', 'sides': [360, 640]}
    """
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {redacted_values(name): redacted_values(inner) for name, inner in value.items()}
    return [redacted_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def keep_credentials(texts: Iterable[str], *, replace: bool = True) -> list[str]:
    """Returns the texts as `redacted_uri` does, and keeps their credentials for `with_credentials`.

    They are kept for this process and those that it starts.

    Args:
        texts: URIs, words of a command line, lines of a list, …; each holds one URI at most.
        replace: whether credentials that are kept for the same store are replaced; else others are an error.

    Raises:
        JobError: different credentials are given for one store.
    """
    kept = _kept()
    given: dict[str, Credentials] = {} if replace else dict(kept)
    result = []
    for text in texts:
        shown, found = _taken_out(text, _ALONE)
        result.append(shown)
        if found and given.setdefault(_store(shown), found) != found:
            raise JobError(
                f"{_store(shown)} is given with two different credentials. Give one that may do everything, in each "
                f"place."
            )
    if given and (kept | given) != kept:
        os.environ[VARIABLE] = json.dumps(kept | given)
    return result


def with_credentials(uri: str) -> str:
    """Returns a URI with the credentials that were taken out of it, to open what it names.

    Raises:
        JobError: they are not known.
    """
    if not lacks_credentials(uri):
        return uri
    known = _known(uri)
    if known is None:
        raise JobError(f"The credentials of {uri} are not known here. {_REMEDY}")
    uri = uri.replace(f"://{REDACTED}@", f"://{known.get('', REDACTED)}@", 1)
    return _ALONE.option.sub(lambda found: f"{found[1]}{found[2]}={known.get(found[2], found[3])}", uri)


def check_credentials(flag: str, uri: str) -> None:
    """Checks that the credentials that were taken out of a flag's value are known.

    Raises:
        JobError: they are not.
    """
    if lacks_credentials(uri) and _known(uri) is None:
        raise JobError(f"{flag} {uri} has no credentials: they are never written down. Give {flag} again. {_REMEDY}")


def lacks_credentials(uri: str) -> bool:
    """Returns whether credentials were taken out of a URI.

    >>> lacks_credentials("s3://REDACTED@bucket/a"), lacks_credentials("s3://bucket/a")
    (True, False)
    """
    return f"://{REDACTED}@" in uri or any(
        found[3] == REDACTED for found in _ALONE.option.finditer(uri) if "://" in uri
    )


def configure_logging(form: str = logging.BASIC_FORMAT) -> None:
    """Sends log lines from INFO on to stderr, `redacted`, unless logging is configured already.

    Args:
        form: of a line, as `logging.Formatter` takes it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactedFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _RedactedFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


_REMEDY = (
    f"Write KEY:SECRET@ in the place of {REDACTED}@, or leave {REDACTED}@ out and set the variables that the store's "
    f"own tools read (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
)


def _taken_out(text: str, patterns: _Patterns = _IN_TEXT) -> tuple[str, Credentials]:
    """Returns the redacted text, and what was taken out of it."""
    found: Credentials = {}
    start = text.find("://")
    if start < 0:
        return text, found

    def login(match: re.Match[str]) -> str:
        who, scheme = match[1], match.string[: match.start()]
        path = _PORT_AND_PATH.match(who) and not scheme.endswith(("s3://", "gs://"))
        container = ":" not in who and scheme.endswith(("abfs://", "abfss://"))
        if path or container or who in ("anonymous", REDACTED):
            return match[0]
        found[""] = _encoded(who)
        return f"{REDACTED}@"

    def option(match: re.Match[str]) -> str:
        if match[3] != REDACTED:
            found[match[2]] = _encoded(match[3])
        return f"{match[1]}{match[2]}={REDACTED}"

    text = patterns.login.sub(login, text)
    return text[:start] + patterns.option.sub(option, text[start:]), found


def _encoded(secret: str) -> str:
    """Encodes what people leave raw in secrets of AWS, and what else would end the login or become a blank."""
    return secret.replace("/", "%2F").replace("+", "%2B").replace("@", "%40")


def _store(uri: str) -> str:
    """Returns what credentials are valid for: the bucket or host of a URI, at its endpoint."""
    found = _STORE.search(uri)
    assert found, uri
    scheme, host, endpoint = found.groups()
    return f"{scheme}://{host}" + (f" at {endpoint}" if endpoint else "")


def _known(uri: str) -> Credentials | None:
    """Returns the credentials of a URI's store; None if they are not known."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    shown, found = _taken_out(tracking, _ALONE)
    return found if shown == uri else _kept().get(_store(uri))


def _kept() -> dict[str, Credentials]:
    return json.loads(os.environ.get(VARIABLE) or "{}")
