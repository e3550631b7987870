"""Click an example on the open page and take a picture of it: `python benchmarks/app_screenshot.py ADDRESS OUT.png`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SIZE = {"width": 1100, "height": 800}

PATIENCE = 120_000
"""Milliseconds that the first answer may take, for which programs are compiled."""


def chromium() -> str | None:
    """The system's browser; Playwright brings none of its own here."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window, until the block ends."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--hide-scrollbars"])
        yield started
        started.close()


def click_example(page: Page, number: int) -> None:
    """Click an example, the first is 1, and wait for its answer."""
    page.locator("tbody tr.tr-body").nth(number - 1).click()
    page.locator("#answer .sentence").wait_for()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="what python -m scanner_jax.app prints")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--example", type=int, default=1, metavar="N", help="the first is 1 (%(default)s)")
    options = parser.parse_args()
    with browser() as started:
        page = started.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE)
        page.goto(options.address)
        click_example(page, options.example)
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(1000)  # scrolling to the answer is smooth
        page.screenshot(path=options.out)


if __name__ == "__main__":
    main()
