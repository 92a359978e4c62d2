"""A headless Chromium, and what its page did that a page opened from disk should not do."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from chromium import chromium, watched_page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it."""
    with chromium() as one:
        yield one


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of its own for a test: 1280 x 900, nothing kept of others."""
    made = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may write no error to its console and ask for nothing but files; the test fails where it did."""
    with watched_page(context, "file:", "data:") as made:
        yield made
