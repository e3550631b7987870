"""The gallery in a real browser: its script runs, its filters hide, its boxes stand where they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gallery_cases import ALL_KINDS, example, images, make, person, report
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(folder: Path, address: str, *options: str) -> str:
    """Open an address in Chromium, see that the page complains of nothing, and return what the browser prints."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command = [CHROMIUM, *switches, f"--user-data-dir={folder / 'browser'}", *options, address]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    return run.stdout


def test_in_a_browser(tmp_path: Path) -> None:
    make(tmp_path, images=images(tmp_path / "images", ["right"]))
    address = (tmp_path / "gallery.html").as_uri()
    for asked, shown in {
        "": list(ALL_KINDS),
        "#filter=box-wrong": ["box-wrong"],
        "#filter=wrong&search=ORG+visits": ["several"],
        "#search=%3Cnowhere": [],
    }.items():
        page = browse(tmp_path, f"{address}{asked}", "--dump-dom")
        assert f'<output id="shown">{len(shown)} of 6 tweets</output>' in page
        articles = re.findall(r"<article([^>]*)>.*?<h2>([\w-]+)", page, re.DOTALL)
        assert {name for attributes, name in articles if "hidden" not in attributes} == set(shown)
        assert '<div id="controls">' in page  # hidden only where no script runs


def test_boxes_stand_around_what_they_are_boxes_of(tmp_path: Path) -> None:
    """On a screenshot, a blue thing in a large image lies just within the green frame of its gold box."""
    picture = Image.new("RGB", (1200, 800), "white")
    box = (300.0, 200.0, 900.0, 500.0)
    picture.paste((0, 0, 255), (310, 210, 890, 490))
    picture.save(tmp_path / "1.png")
    examples = [example("one", person(box))]
    run = report(tmp_path / "report", {"one": []}, examples)
    make(tmp_path, run, examples, images={"image-one": tmp_path / "1.png"})
    shot = tmp_path / "shot.png"
    browse(tmp_path, (tmp_path / "gallery.html").as_uri(), "--window-size=1200,900", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 2] > 200) & (pixels[..., :2] < 60).all(axis=-1))
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    assert right - left == pytest.approx(0.4 * 580, abs=8) and bottom - top == pytest.approx(0.4 * 280, abs=8)
    green = (abs(pixels - (11, 122, 59)) < 12).all(axis=-1)
    assert green[top : bottom + 1, left - 8 : left].any(axis=1).all()
    assert green[top : bottom + 1, right + 1 : right + 9].any(axis=1).all()
    assert green[top - 8 : top, left + 20 : right + 1].any(axis=0).all()  # the row's number stands in the corner
    assert green[bottom + 1 : bottom + 9, left : right + 1].any(axis=0).all()
