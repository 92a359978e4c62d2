"""A headless Chromium, and what its pages did that they should not do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_ARGUMENTS += ["--disable-component-update", "--disable-sync"]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Chromium as the system has it; SGMG_CHROMIUM names another one. Skips where there is none, but not in CI."""
    path = os.environ.get("SGMG_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        said = "no Chromium: install Debian's package chromium, or set SGMG_CHROMIUM to the path of one"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=[*_ARGUMENTS, *arguments])


@contextmanager
def watched_page(context: BrowserContext, *allowed: str) -> Iterator[Page]:
    """A page that may write no error to its console and ask only for what begins so; the block fails where it did."""
    wrong: list[str] = []
    made = context.new_page()
    made.set_default_timeout(10_000)
    made.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on(
        "requestfailed", lambda request: wrong.append(f"{request.url}: {request.failure}") if _lost(request) else None
    )
    made.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(allowed) else None)
    made.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}") or dialog.dismiss())
    yield made
    assert wrong == [], wrong


def _lost(request: object) -> bool:
    """Whether a request failed by itself: a player that is taken away ends its own."""
    return "ERR_ABORTED" not in str(getattr(request, "failure", ""))
