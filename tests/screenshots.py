"""Makes the pictures of docs/ui.md and docs/viewer.md: python tests/screenshots.py kodak/kodim23.png kodak/kodim01.png

Without arguments only that of docs/viewer.md.

On a quiet machine: the page shows the time of each stage.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import browser as driven
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from serving import Server

from sodec.codec import Codec
from sodec.pages import viewer
from sodec.ui.app import served
from sodec.ui.trial import Limits
from sodec.weights import find

DOCS = Path(__file__).parent.parent / "docs"
READY = "return document.querySelectorAll('.trial-figures caption').length > 3"
FIT = "return document.documentElement.scrollHeight"
WAIT_S = 120


def screenshot(browser, width: int, height: int) -> Image.Image:
    """The page at this width, down to `height`, without the bar that scrolls it."""
    driven.size(browser, width, browser.execute_script(FIT))
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return shot.crop((0, 0, width, min(height, shot.height)))


def ui(browser) -> Image.Image:
    """The page of `sodec ui`, on a desktop and on a phone."""
    shots = []
    with served(Codec(), host="127.0.0.1", port=None, limits=Limits()) as page:
        for width in (1280, 360):
            driven.size(browser, width, 2000)
            browser.get(page.address)
            WebDriverWait(browser, WAIT_S).until(lambda b: b.execute_script(READY))
            shots.append(screenshot(browser, width, 1500))
    return beside(*shots)


def beside(desktop: Image.Image, phone: Image.Image) -> Image.Image:
    """Two screenshots side by side."""
    height = desktop.height
    phone = phone.resize((round(phone.width * height / phone.height), height), Image.Resampling.LANCZOS)
    joined = Image.new("RGB", (desktop.width + 24 + phone.width, height), "grey")
    joined.paste(desktop, (0, 0))
    joined.paste(phone, (desktop.width + 24, 0))
    return joined


def opened_in_viewer(browser) -> Image.Image:
    """The viewer with the example of the documentation, on a desktop and on a phone."""
    shots = []
    with tempfile.TemporaryDirectory() as folder, Server(folder) as site:
        viewer.assemble(Path(folder), find("lite"), runtime=viewer.kept_runtime(DOCS.parent / "build"))
        (Path(folder) / "budgie.sodec").write_bytes((DOCS / "pictures/budgie.sodec").read_bytes())
        for width in (900, 360):
            driven.size(browser, width, 2000)
            browser.get(f"{site.address}index.html?src=budgie.sodec")
            WebDriverWait(browser, WAIT_S).until(lambda b: "Full picture" in b.find_element(By.ID, "facts").text)
            shots.append(screenshot(browser, width, 960))
    return beside(*shots)


def compare(browser, pictures: list[str]) -> Image.Image:
    """The beginning of a report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        subprocess.run([sys.executable, "-m", "sodec", "compare", *pictures, "-o", str(report)], check=True)
        driven.size(browser, 1100)
        browser.get(report.as_uri())
        return screenshot(browser, 1100, 2020)


if __name__ == "__main__":
    with driven.chromium() as opened:
        opened_in_viewer(opened).save(DOCS / "viewer.jpg", quality=85, optimize=True)
        if sys.argv[1:]:
            ui(opened).save(DOCS / "ui.jpg", quality=82, optimize=True)
            compare(opened, sys.argv[1:]).save(DOCS / "compare.jpg", quality=80, optimize=True)
