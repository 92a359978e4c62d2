"""An S3 server for tests, in a process of its own: moto, which counts requests, and is busy or slow on demand."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from patience import PATIENCE

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "for-tests",
    "AWS_SECRET_ACCESS_KEY": "for-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_CONTROL = "/-/"
_PAGE = 1000
_FILE = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1000000</Size>"


@dataclass
class S3Server:
    """A running server with one empty bucket, until the end of the block."""

    process: subprocess.Popen[bytes]
    address: str

    @classmethod
    def start(cls) -> "S3Server":
        """Starts a server on a free port of this machine."""
        process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, env=os.environ | CREDENTIALS)
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address, "the S3 server did not start"
        server = cls(process, address)
        urllib.request.urlopen(urllib.request.Request(f"http://{address}/{BUCKET}", method="PUT"), timeout=PATIENCE)
        server.requests()
        return server

    def uri(self, path: str = "") -> str:
        """The URI of a path in the bucket, as people give it for a store of their own."""
        return f"s3://{BUCKET}/{path}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def requests(self) -> list[str]:
        """The method and path of all requests since the last call."""
        return self._ask("requests")

    def users(self) -> set[str]:
        """The access keys that signed the requests since the last call."""
        return set(self._ask("users"))

    def busy(self, requests: int) -> None:
        """Answers so many requests, from now on, with 503."""
        self._ask(f"busy?{requests}")

    def slow(self, seconds: float) -> None:
        """Waits so long before each answer, from now on."""
        self._ask(f"slow?{seconds}")

    def hold(self, part: str, seconds: float) -> None:
        """Waits so long before it takes the next file whose key has that part."""
        self._ask(f"hold?{part}:{seconds}")

    def fill(self, folder: str, files: int) -> None:
        """Lists so many files in a folder from now on, 000000.mp4 and so on, which cannot be read.

        It does so at once, as a store does; moto would sort all names for each page.
        """
        self._ask(f"fill?{folder}/{files}")

    def __enter__(self) -> "S3Server":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}{_CONTROL}{what}", timeout=PATIENCE) as answer:
            return json.load(answer)


@dataclass
class _Watched:
    """A WSGI application that notes what it is asked, and obeys the controls above."""

    application: Callable[..., Iterable[bytes]]
    seen: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    busy: int = 0
    seconds: float = 0.0
    held: tuple[str, float] | None = None
    filled: dict[str, int] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        if path.startswith(_CONTROL):
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._control(path.removeprefix(_CONTROL), query)).encode()]
        with self.guard:
            self.seen.append(f"{environ['REQUEST_METHOD']} {path}{'?' if query else ''}{query}")
            self.users.update(re.findall(r"Credential=([^/]+)", environ.get("HTTP_AUTHORIZATION", "")))
            refused = self.busy > 0
            self.busy -= refused
            held = self.held if environ["REQUEST_METHOD"] == "PUT" and self.held and self.held[0] in path else None
            self.held = None if held else self.held
        time.sleep(self.seconds + (held[1] if held else 0.0))
        if refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        asked = dict(parse_qsl(query))
        if asked.get("prefix") in self.filled:
            start_response("200 OK", [("Content-Type", "application/xml")])
            return [self._page(asked["prefix"], int(asked.get("continuation-token", 0)))]
        return self.application(environ, start_response)

    def _page(self, folder: str, first: int) -> bytes:
        """A page of the list of a filled folder."""
        names = [f"{folder}{number:06d}.mp4" for number in range(first, min(first + _PAGE, self.filled[folder]))]
        files = "".join(f"<Contents><Key>{name}</Key>{_FILE}</Contents>" for name in names)
        after = first + len(names)
        more = f"<NextContinuationToken>{after}</NextContinuationToken>" if after < self.filled[folder] else ""
        head = f"<KeyCount>{len(names)}</KeyCount><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        return f"<ListBucketResult>{head}{more}{files}</ListBucketResult>".encode()

    def _control(self, what: str, value: str) -> Any:
        with self.guard:
            if what == "busy":
                self.busy = int(value)
            elif what == "slow":
                self.seconds = float(value)
            elif what == "hold":
                part, seconds = value.split(":")
                self.held = part, float(seconds)
            elif what == "fill":
                folder, files = value.split("/")
                self.filled[f"{folder}/"] = int(files)
            elif what == "users":
                users, self.users = sorted(self.users), set()
                return users
            elif what == "requests":
                seen, self.seen = self.seen, []
                return seen
        return None


def main() -> None:
    """Serves until it is killed; prints the address."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # others talk to this
    from werkzeug.serving import make_server

    watched = _Watched(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, watched, threaded=True)
    sys.stdout.write(f"{urlsplit(f'http://{server.host}').hostname}:{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
