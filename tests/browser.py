"""A headless Chromium for tests, driven by Selenium; None where either is missing."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
)  # fmt: skip
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU")


def missing() -> str:
    """What is missing for tests in a browser, as a sentence, or an empty one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install selenium"
    if BROWSER is None or DRIVER is None:
        return "no chromium and chromedriver: apt-get install chromium chromium-driver"
    return ""


@contextmanager
def chromium(webgpu=False):
    """A browser with its own profile; with `webgpu` it has a GPU that the processor imitates."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        flags = set(FLAGS) - {"--disable-gpu"} | set(WEBGPU) if webgpu else FLAGS
        for flag in (*flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            browser.get("about:blank")
            requests(browser)  # of the page that a browser opens with
            yield browser
        finally:
            browser.quit()


def size(browser, width, height=900):
    """Lays the page out for this many pixels, since a browser's window can't be as narrow as a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requests(browser):
    """Addresses that the browser requested since the last call, without data: URLs."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in asked if not params["request"]["url"].startswith(("data:", "blob:"))]


def overflow(browser):
    """Pixels by which the page is wider than its visible part."""
    return browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
