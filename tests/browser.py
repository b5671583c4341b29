"""Headless Chromium for the tests: the one of the system, or the one that ``playwright install chromium`` brings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
"""Chromium asks its makers nothing."""


def executable(playwright: Playwright) -> str:
    own = playwright.chromium.executable_path
    found = next((path for name in NAMES if (path := shutil.which(name))), own if Path(own).is_file() else None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or .venv/bin/playwright install chromium")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # as root Chromium starts without its sandbox only
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=executable(playwright), args=[*QUIET, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page as it was opened, and all that it asked for or complained of since."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, colors: str = "light", height: int = 900) -> Iterator[Opened]:
    """Open a file, offline. At the end it must have asked for nothing but itself, and complained of nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=colors, offline=True, reduced_motion="reduce"
    )
    context.set_default_timeout(5000)
    found = Opened(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.complaints.append(f"error: {error}"))
    try:
        found.page.goto(path.resolve().as_uri())
        yield found
        outside = [url for url in found.requests if not url.startswith(("data:", path.resolve().as_uri()))]
        assert not outside, outside
        assert not found.complaints, found.complaints
    finally:
        context.close()
