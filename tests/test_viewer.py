"""The page that decodes streams in a browser: its pixels against Python's, and what it does with them.

pytest tests/test_viewer.py -s     prints the seconds to the first and to the full picture
"""

import base64
import json

import browser as driven
import numpy as np
import pytest
from PIL import Image
from serving import SHARED
from viewing import (
    LEVELS,
    MODES,
    TESTS,
    WAIT_S,
    answers,
    chromium,
    codec,
    expected_pixels,
    fresh,
    open_page,
    pixels_of,
    runtime,
    site,
    wait,
)

from sodec.weights import find

__all__ = ["chromium", "codec", "fresh", "runtime", "site"]  # fixtures
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


READ_STREAMS = """
const [model, streams, done] = arguments;

async function sha256(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...sum].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function answerAll() {
  const names = ["container", "coding", "tile", "sections"];
  const [container, coding, tile, sections] = await Promise.all(names.map((name) => import(`/format/${name}.js`)));
  const integers = coding.codingFromJson(model), answers = {};
  for (const [name, digits] of Object.entries(streams)) {
    try {
      const bytes = Uint8Array.from(digits.match(/../g), (pair) => parseInt(pair, 16));
      const stream = container.read(bytes, {maxTile: 65536});
      const alpha = await sections.readSections(stream), tiles = [];
      for (const [number, {width, height}] of container.tileBoxes(stream).entries()) {
        const {z, y} = tile.readTile(stream.payloads[number], width, height, stream.quality, integers);
        tiles.push({z: await sha256(z), y: await sha256(y)});
      }
      answers[name] = {alpha: alpha && await sha256(alpha), tiles};
    } catch (error) {
      answers[name] = error.name;
    }
  }
  return answers;
}

answerAll().then(done, (error) => done(String(error)));
"""


def test_every_golden_stream_gives_the_same_symbols_in_the_browser(chromium, site):
    expected = json.loads((TESTS / "conformance/expected.json").read_text())
    chromium.get(f"{site.address}index.html")
    streams = {name: (TESTS / name).read_bytes().hex() for kind in ("streams", "errors") for name in expected[kind]}
    model = json.loads((TESTS / "golden/model.json").read_text())
    found = chromium.execute_async_script(READ_STREAMS, model, streams)
    assert isinstance(found, dict), found
    for name, wanted in expected["streams"].items():
        assert found[name] == {"alpha": wanted["alpha"], "tiles": wanted["tiles"]}, name
    kinds = {"corrupt": "CorruptStreamError", "newer": "NewerFormatError"}
    for name, wanted in expected["errors"].items():
        assert found[name] == kinds[wanted["refused"]], name


@pytest.mark.parametrize("isolated", [False, True], ids=["one thread", "threads"])
def test_a_photo_is_within_two_levels_of_python_s_and_its_facts_are_shown(chromium, site, codec, isolated, capsys):
    site.headers = SHARED | (ISOLATED if isolated else {})
    open_page(chromium, site, "photo")
    assert chromium.execute_script("return crossOriginIsolated") == isolated
    found = answers(chromium, count=len(MODES))
    assert [one["mode"] for one in found] == MODES
    for one in found:
        off = np.abs(pixels_of(one["pixels"]) - expected_pixels(site, codec, "photo", one["mode"]))
        assert off.shape == (512, 768, 3)
        assert off.max() <= LEVELS
    with capsys.disabled():
        times = ", ".join(f"{one['mode']} {one['seconds']:.2f} s" for one in found)
        print(f"\n768x512 in Chromium, {'two threads' if isolated else 'one thread'}: {times}")
    facts = chromium.find_element("id", "facts").text
    size = (site.folder / "pictures/photo.sodec").stat().st_size
    for fact in (
        "photo.sodec",
        "768 × 512 pixels",
        f"{size:,} (",
        "bits per pixel",
        "Quality\n25",
        f"lite {find('lite').version}",
    ):
        assert fact in facts, facts


@pytest.mark.parametrize("name", ["grey", "alpha", "pixel", "tiles", "wide"])
def test_other_pictures_too(chromium, site, codec, name):
    open_page(chromium, site, name)
    for one in answers(chromium, count=len(MODES)):
        expected = expected_pixels(site, codec, name, one["mode"])
        shown = pixels_of(one["pixels"], "RGBA")
        solid = shown[..., 3] > 250  # a canvas keeps colours times alpha
        assert np.abs(shown[..., :3] - expected)[solid].max() <= LEVELS
        if name == "grey":
            assert (shown[..., :1] == shown[..., :3]).all()
        if name == "alpha":
            data = (site.folder / "pictures/alpha.sodec").read_bytes()
            assert np.array_equal(shown[..., 3], np.asarray(codec.decompress(data).getchannel("A")))


@pytest.mark.parametrize("broken", [False, True], ids=["works", "broken"])
def test_webgpu_gives_the_same_picture_and_where_it_fails_webassembly_does(site, codec, broken):
    """On a GPU that the processor imitates, which the page would not take by itself."""
    check = "!(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter)"
    files = [site.folder / name for name in ("networks/networks.js", "onnxruntime/ort.webgpu.min.mjs")]
    originals = [file.read_bytes() for file in files]
    assert check.encode() in originals[0]
    files[0].write_bytes(originals[0].replace(check.encode(), b"true"))
    if broken:
        files[1].write_text("throw new Error('broken')")
    try:
        with driven.chromium(webgpu=True) as browser:
            open_page(browser, site, "grey")
            found = answers(browser, count=len(MODES), seconds=5 * WAIT_S)
            gpu = browser.execute_script("return navigator.gpu?.requestAdapter().then(Boolean)")
    finally:
        for file, original in zip(files, originals, strict=True):
            file.write_bytes(original)
    if not gpu:
        pytest.skip("this chromium has no WebGPU")
    for one in found:
        assert one["provider"] == ("wasm" if broken else "webgpu")
        off = np.abs(pixels_of(one["pixels"]) - expected_pixels(site, codec, "grey", one["mode"]))
        assert off.max() <= LEVELS


def test_a_file_can_be_dropped_and_the_picture_saved(chromium, site, codec, tmp_path):
    open_page(chromium, site, "photo")
    answers(chromium, count=len(MODES))
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    chromium.execute_script(
        """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
           const transfer = new DataTransfer();
           transfer.items.add(new File([bytes], "dropped.sodec"));
           window.messages = [];
           document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));""",
        base64.b64encode((site.folder / "pictures/grey.sodec").read_bytes()).decode(),
    )
    answers(chromium, count=len(MODES))
    assert "dropped.sodec" in chromium.find_element("id", "facts").text
    chromium.execute_script("document.querySelector('sodec-img').shadowRoot.querySelectorAll('button')[1].click()")
    saved = tmp_path / "dropped.png"
    wait(chromium, saved.exists)
    found = np.asarray(Image.open(saved).convert("RGB"), np.int16)
    assert np.abs(found - expected_pixels(site, codec, "grey", MODES[-1])).max() <= LEVELS


def test_weights_are_fetched_once(chromium, site):
    for _ in range(2):
        site.asked.clear()
        open_page(chromium, site, "pixel")
        answers(chromium, count=len(MODES))
    assert "/weights.json" in site.asked
    assert not [path for path in site.asked if path.startswith("/weights/")]
