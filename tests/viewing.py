"""What tests of the viewer share: the page, assembled and served with streams beside it, in a browser.

ONNX Runtime's files come from npm once and stay in pytest's cache.
"""

import base64
import functools
import io
from pathlib import Path

import browser as driven
import numpy as np
import pytest
from golden import make as golden
from PIL import Image
from serving import SHARED, Server

from sodec.errors import MissingPackageError
from sodec.files import PHOTO
from sodec.pages import viewer
from sodec.stream import container
from sodec.weights import find

TESTS = Path(__file__).parent
LEVELS = 2  # of 255 that a pixel may differ from Python's in float32
WAIT_S = 120


@pytest.fixture(scope="module")
def runtime(request):
    """ONNX Runtime's files, as an unpacked package."""
    try:
        return viewer.kept_runtime(request.config.cache.mkdir("npm"))
    except MissingPackageError as error:
        pytest.skip(str(error))


@functools.cache
def float32_codec():
    from sodec.codec import Codec

    return Codec("lite", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def codec():
    """The codec whose pixels the page must have; one for all files of tests."""
    pytest.importorskip("torch")
    return float32_codec()


def photo(width, height):
    with Image.open(PHOTO) as picture:
        return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@functools.cache
def files():
    """The files that the page is asked to open, by name; written once for all files of tests."""
    ramp = Image.linear_gradient("L").resize((300, 200))
    pictures = {
        "photo": (photo(768, 512), 25),
        "grey": (photo(300, 200).convert("L"), 40.5),
        "alpha": (Image.merge("RGBA", (*photo(300, 200).split(), ramp)), 60),
        "tiles": (photo(1100, 1050), 70),
        "pixel": (photo(1, 1), 100),
        "wide": (photo(20_000, 8), 30),
    }
    streams = {name: float32_codec().compress(*picture) for name, picture in pictures.items()}
    good = streams["photo"]
    field = {"width": 10000, "height": 10000, "quality": 50, "fingerprint": find("lite").fingerprint}
    return streams | {
        "damaged": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "short": good[:-9],
        "empty": b"",
        "text": b"not a picture",
        "png": PHOTO.read_bytes()[:3000],
        "unknown": container.write(container.Stream(16, 16, 50, b"\1\2\3", (b"\0\0",))),
        "large": container.write(container.Stream(**field, payloads=(b"\0",) * 100)),
        "newer": golden.resealed(good[:3] + b"\x18" + good[4:]),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory, runtime, codec):
    """The page, with streams beside it, served."""
    if driven.missing():
        pytest.skip(driven.missing())
    folder = tmp_path_factory.mktemp("site")
    viewer.assemble(folder, find("lite"), runtime=runtime)
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, data in files().items():
        (pictures / f"{name}.sodec").write_bytes(data)
    with Server(folder) as one:
        yield one


@pytest.fixture(scope="module")
def chromium():
    if driven.missing():
        pytest.skip(driven.missing())
    with driven.chromium() as browser:
        browser.set_script_timeout(WAIT_S)
        yield browser


@pytest.fixture(autouse=True)
def fresh(request):
    """Each test begins with the servers' usual headers and the same window."""
    if "site" in request.fixturenames:
        server, browser = request.getfixturevalue("site"), request.getfixturevalue("chromium")
        server.headers = SHARED
        driven.size(browser, 1000)
        browser.get("about:blank")
        server.asked.clear()


def wait(browser, condition, seconds=WAIT_S):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: condition())


def inner(browser, selector, name="textContent", element="sodec-img"):
    """A property of an element in the shadow of <sodec-img>."""
    script = "return document.querySelector(arguments[2])?.shadowRoot.querySelector(arguments[0])?.[arguments[1]]"
    return browser.execute_script(script, selector, name, element)


MODES = ["fidelity", "full"]  # the pictures of a stream, in order


LISTEN = """
window.messages = [];
for (const name of ["sodec-header", "sodec-picture", "sodec-error"]) {
  document.addEventListener(name, ({detail, target}) => {
    const shown = target.shadowRoot.querySelector("canvas:not([hidden])");
    const pixels = name === "sodec-picture" ? shown.toDataURL("image/png") : null;
    window.messages.push({...detail, name, pixels});
  }, true);
}
"""


def open_page(browser, site, name, path="index.html"):
    """Opens the page with a stream, and listens to what <sodec-img> announces."""
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    browser.get(f"{site.address}{path}?src=pictures/{name}.sodec")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def answers(browser, name="sodec-picture", count=1, seconds=WAIT_S):
    """Waits for so many messages of a name."""

    def come():
        found = browser.execute_script("return window.messages")
        failed = [one for one in found if one["name"] == "sodec-error"]
        assert name == "sodec-error" or not failed, failed
        found = [one for one in found if one["name"] == name]
        return found if len(found) >= count else None

    return wait(browser, come, seconds)


def pixels_of(uri, mode="RGB"):
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode), np.int16)


def expected_pixels(site, codec, name, mode):
    data = (site.folder / "pictures" / f"{name}.sodec").read_bytes()
    return np.asarray(codec.decompress(data, mode=mode).convert("RGB"), np.int16)


def drop(browser, site, name):
    path = site.folder / "pictures" / f"{name}.sodec"
    browser.execute_script("window.messages = window.messages.filter(({name}) => name !== 'sodec-error')")
    browser.find_element("id", "file").send_keys(str(path))
