"""A headless browser, in which a page of `phalanx report` is read as a person would see it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def look(page: Path, home: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Let a real browser show the page until it has drawn itself."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is here to look at the page")
    given = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--window-size=1300,3000")
    command = [browser, *given, "--virtual-time-budget=5000", "--enable-logging=stderr", *options, page.as_uri()]
    return subprocess.run(command, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True)


def document(page: Path, home: Path, *options: str) -> str:
    """What the page has become in a browser, which had nothing to complain of."""
    done = look(page, home, "--dump-dom", *options)
    assert "CONSOLE" not in done.stderr
    return done.stdout
