"""How the images and videos of Label Studio's tasks are fetched: from its own host, and from hosts that are allowed."""

import base64
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

import httpx

from label_studio_regions import AdapterError

_CLOUDS = ("s3", "gs", "azure-blob")
_IN_MEMORY = 16 * 2**20  # bytes of a file that are kept in memory
_REDIRECTS = 3
_SECONDS = 300.0  # for a whole file


@dataclass(frozen=True, slots=True)
class Files:
    """Where files come from, and how large they may be.

    Attributes:
        label_studio: address of Label Studio.
        key: its API key, sent to no other host.
        hosts: further hosts that files may come from, such as that of a bucket's pre-signed URLs.
        max_bytes: of an image or a video.
    """

    label_studio: str
    key: str
    hosts: tuple[str, ...]
    max_bytes: int

    def url_of(self, address: object, task: object) -> httpx.URL:
        """Returns where a task's file is fetched; the files of a bucket (s3://…) are asked of Label Studio.

        Args:
            address: as the data of the task gives it.
            task: number of the task.

        Raises:
            AdapterError: it is no address, or of a host that is not allowed.
        """
        if not isinstance(address, str) or not address:
            raise AdapterError(f"The task has no address of an image or a video (got {address!r}).")
        base = self.label_studio.rstrip("/")
        if address.partition("://")[0] in _CLOUDS:
            encoded = base64.urlsafe_b64encode(address.encode()).decode()
            address = f"{base}/tasks/{task}/presign/?fileuri={encoded}"
        elif address.startswith("/") and not address.startswith("//"):
            address = base + address
        try:
            return self._allowed(httpx.URL(address))
        except httpx.InvalidURL as error:
            raise AdapterError(f"{address!r} is no address: {error}.") from error

    @contextlib.contextmanager
    def fetched(self, url: httpx.URL) -> Iterator[IO[bytes]]:
        """Yields a file; it is gone afterwards.

        Raises:
            AdapterError: it is not given, comes from a host that is not allowed, or is too large or too slow.
        """
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            try:
                with self._opened(url) as answer:
                    self._copy(answer, file)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise AdapterError(f"{url} cannot be fetched: {error!r}. Check LABEL_STUDIO_URL.") from error
            file.seek(0)
            yield file

    @contextlib.contextmanager
    def _opened(self, url: httpx.URL) -> Iterator[httpx.Response]:
        """Yields the answer of an address, behind redirects to allowed hosts."""
        for _ in range(_REDIRECTS + 1):
            key = {"Authorization": f"Token {self.key}"} if self.key and self._own(url) else {}
            with httpx.stream("GET", url, headers=key, timeout=30) as answer:
                if not answer.has_redirect_location:
                    if answer.status_code != 200:
                        raise AdapterError(f"{url} answered {answer.status_code}. Check LABEL_STUDIO_API_KEY.")
                    yield answer
                    return
                url = self._allowed(url.join(answer.headers["location"]))
        raise AdapterError(f"{url} is behind more than {_REDIRECTS} redirects.")

    def _copy(self, answer: httpx.Response, file: IO[bytes]) -> None:
        until = time.monotonic() + _SECONDS
        for part in answer.iter_bytes():
            file.write(part)
            if file.tell() > self.max_bytes:
                raise AdapterError(f"{answer.url} has more than {self.max_bytes / 1e6:g} MB. See --max-mb.")
            if time.monotonic() > until:
                raise AdapterError(f"{answer.url} took more than {_SECONDS:g} s. Put a smaller file there.")

    def _allowed(self, url: httpx.URL) -> httpx.URL:
        """Checks that an address may be fetched: this machine may reach what whoever made the task may not."""
        if url.scheme not in ("http", "https") or not (self._own(url) or url.host in self.hosts):
            raise AdapterError(
                f"{str(url)!r} is no file of {self.label_studio}, and only those are fetched. Upload it there, let "
                f"Label Studio proxy its storage (pre-signed URLs off), or allow its host: --allow-host {url.host}."
            )
        return url

    def _own(self, url: httpx.URL) -> bool:
        base = httpx.URL(self.label_studio)
        return (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)
