"""The page that decodes streams in a browser, and <sodec-img>, in a real one: pixels, errors, and what it reaches.

pytest tests/test_viewer.py -s     prints the seconds to the first and to the full picture

The page is assembled as `sodec viewer` does it. ONNX Runtime's files come from npm once and stay in pytest's cache.
"""

import base64
import io
import json
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import browser as driven
import numpy as np
import pytest
from golden import make as golden
from PIL import Image
from safetensors.numpy import load
from serving import SHARED, Server

from sodec.errors import MissingPackageError, OutputError, WeightsError
from sodec.files import PHOTO
from sodec.pages import viewer
from sodec.stream import container
from sodec.weights import find

TESTS = Path(__file__).parent
LEVELS = 2  # of 255 that a pixel may differ from Python's in float32
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
PHONE = 360
WAIT_S = 120


# -- the command


def test_the_page_s_own_files_are_complete_and_no_more():
    files = viewer.page_files()
    assert {"index.html", "page.js", "sodec-img.js", "worker.js", "format/container.js"} <= files.keys()
    assert not [name for name in files if "test" in name or name.startswith("node/")]


def test_weights_are_those_that_the_graphs_name_and_at_most_20_mb():
    files = viewer.weights_files(find("lite"))
    manifest = json.loads(files["weights.json"])
    listed = [manifest["coding"], manifest["tensors"], *manifest["graphs"].values()]
    assert {one["path"] for one in listed} == files.keys() - {"weights.json"}
    assert all(len(files[one["path"]]) == one["bytes"] for one in listed)
    assert sum(one["bytes"] for one in listed) <= 20e6
    planes = np.frombuffer(zlib.decompress(files["weights/networks.packed"]), np.uint8)
    tensors = load(planes.reshape(2, -1).T.tobytes())
    assert "fidelity.decoder.enter.weight" in tensors
    assert not [name for name in tensors if name.startswith("analysis.")]
    assert all(np.array_equal(tensors[name], find("lite").tensors()[name]) for name in list(tensors)[:5])


def test_without_npm_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(viewer.shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match="--onnxruntime"):
        viewer.assemble(tmp_path / "site", find("lite"))
    assert not (tmp_path / "site").exists()
    with pytest.raises(MissingPackageError, match=r"ort\.wasm\.min\.mjs"):
        viewer.assemble(tmp_path / "site", find("lite"), runtime=tmp_path)


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputError, match=r"index\.html"):
        viewer.assemble(tmp_path, find("lite"), runtime=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_weights_without_graphs_are_refused():
    from tiny import folder

    from sodec.weights import resolve

    with pytest.raises(WeightsError, match="export-onnx"):
        viewer.weights_files(resolve("lite", folder()))


# -- in a browser


@pytest.fixture(scope="module")
def runtime(request):
    """ONNX Runtime's files, as an unpacked package."""
    try:
        return viewer.kept_runtime(request.config.cache.mkdir("npm"))
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def codec():
    """The codec whose pixels the page must have."""
    pytest.importorskip("torch")
    from sodec.codec import Codec

    return Codec("lite", device="cpu", dtype="float32")


def photo(width, height):
    with Image.open(PHOTO) as picture:
        return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def site(tmp_path_factory, runtime, codec):
    """The page, with streams beside it, served."""
    if driven.missing():
        pytest.skip(driven.missing())
    folder = tmp_path_factory.mktemp("site")
    viewer.assemble(folder, find("lite"), runtime=runtime)
    pictures = folder / "pictures"
    pictures.mkdir()
    ramp = Image.linear_gradient("L").resize((300, 200))
    for name, picture, quality in (
        ("photo", photo(768, 512), 25),
        ("grey", photo(300, 200).convert("L"), 40.5),
        ("alpha", Image.merge("RGBA", (*photo(300, 200).split(), ramp)), 60),
        ("tiles", photo(1100, 1050), 70),
        ("pixel", photo(1, 1), 100),
    ):
        (pictures / f"{name}.sodec").write_bytes(codec.compress(picture, quality))
    good = (pictures / "photo.sodec").read_bytes()
    field = {"width": 10000, "height": 10000, "quality": 50, "fingerprint": find("lite").fingerprint}
    for name, data in (
        ("damaged", good[:40] + bytes([good[40] ^ 1]) + good[41:]),
        ("short", good[:-9]),
        ("empty", b""),
        ("text", b"not a picture"),
        ("png", PHOTO.read_bytes()[:3000]),
        ("unknown", container.write(container.Stream(16, 16, 50, b"\1\2\3", (b"\0\0",)))),
        ("large", container.write(container.Stream(**field, payloads=(b"\0",) * 100))),
        ("newer", golden.resealed(good[:3] + b"\x18" + good[4:])),
    ):
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


def modes():
    """The pictures that the bundled graphs make, in order."""
    return [
        name
        for name in ("fidelity", "full")
        if name in json.loads(viewer.weights_files(find("lite"))["weights.json"])["graphs"]
    ]


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
    found = answers(chromium, count=len(modes()))
    assert [one["mode"] for one in found] == modes()
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


@pytest.mark.parametrize("name", ["grey", "alpha", "pixel", "tiles"])
def test_other_pictures_too(chromium, site, codec, name):
    open_page(chromium, site, name)
    for one in answers(chromium, count=len(modes())):
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
            found = answers(browser, count=len(modes()), seconds=5 * WAIT_S)
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


SENTENCES = {
    "damaged": "The file is damaged or cut short: its checksum does not match.",
    "short": "The file is damaged or cut short: its checksum does not match.",
    "empty": "The file is empty.",
    "text": "This is not a .sodec file: it begins with other bytes.",
    "png": "This is not a .sodec file: it begins with other bytes.",
    "unknown": "The file needs the weights 010203, which are not here: this page has lite {fingerprint}.",
    "large": "The picture is too large: 10000x10000 are 100 million pixels, at most 50 million are taken.",
    "newer": "The file needs a newer decoder: flag 3 is unknown to version 1 of the format.",
    "missing": "The file {address}pictures/missing.sodec can't be fetched: the server answers 404.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_is_wrong_is_said_in_a_sentence_and_the_page_goes_on(chromium, site, name):
    open_page(chromium, site, name)
    (said,) = answers(chromium, "sodec-error")
    sentence = SENTENCES[name].format(fingerprint=find("lite").fingerprint.hex(), address=site.address)
    assert said["message"] == sentence
    assert inner(chromium, ".problem") == sentence
    assert inner(chromium, ".wait") == ""
    drop(chromium, site, "pixel")
    answers(chromium, "sodec-header", 1 + (name == "unknown"))
    wait(chromium, lambda: inner(chromium, ".problem") == "")


def drop(browser, site, name):
    path = site.folder / "pictures" / f"{name}.sodec"
    browser.execute_script("window.messages = window.messages.filter(({name}) => name !== 'sodec-error')")
    browser.find_element("id", "file").send_keys(str(path))


def test_a_file_can_be_dropped_and_the_picture_saved(chromium, site, codec, tmp_path):
    open_page(chromium, site, "photo")
    answers(chromium, count=len(modes()))
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    chromium.execute_script(
        """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
           const transfer = new DataTransfer();
           transfer.items.add(new File([bytes], "dropped.sodec"));
           window.messages = [];
           document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));""",
        base64.b64encode((site.folder / "pictures/grey.sodec").read_bytes()).decode(),
    )
    answers(chromium, count=len(modes()))
    assert "dropped.sodec" in chromium.find_element("id", "facts").text
    chromium.execute_script("document.querySelector('sodec-img').shadowRoot.querySelectorAll('button')[1].click()")
    saved = tmp_path / "dropped.png"
    wait(chromium, saved.exists)
    found = np.asarray(Image.open(saved).convert("RGB"), np.int16)
    assert np.abs(found - expected_pixels(site, codec, "grey", modes()[-1])).max() <= LEVELS


def test_weights_are_fetched_once(chromium, site):
    for _ in range(2):
        site.asked.clear()
        open_page(chromium, site, "pixel")
        answers(chromium, count=len(modes()))
    assert "/weights.json" in site.asked
    assert not [path for path in site.asked if path.startswith("/weights/")]


TRY_TO_SEND = """
const [address, done] = arguments;
const script = `
  const sent = new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "${address}xhr");
    request.onerror = reject;
    request.onload = resolve;
    request.send("x");
  });
  const fetched = fetch("${address}fetch", {method: "POST", mode: "no-cors", body: "x"});
  const tried = Promise.allSettled([sent, fetched, import("${address}x.js")]);
  tried.then((all) => postMessage(all.map(({status}) => status)));`;
const worker = new Worker(URL.createObjectURL(new Blob([script], {type: "text/javascript"})), {type: "module"});
const image = new Promise((resolve, reject) => {
  Object.assign(new Image(), {onload: resolve, onerror: reject, src: `${address}image.png`});
});
const page = fetch(`${address}page`, {method: "POST", mode: "no-cors", body: "x"});
navigator.sendBeacon(`${address}beacon`, "x");
const ofThePage = Promise.allSettled([image, page]);
worker.onmessage = async ({data}) => done([...data, ...(await ofThePage).map(({status}) => status)]);
worker.onerror = () => done(["no worker"]);
"""


def test_the_policy_lets_page_and_worker_send_nothing_anywhere(chromium, site, tmp_path):
    open_page(chromium, site, "pixel")
    answers(chromium, count=len(modes()))
    with Server(tmp_path) as other:
        assert set(chromium.execute_async_script(TRY_TO_SEND, other.address)) == {"rejected"}
        assert other.asked == []
        # Without a policy the same does reach it: the test can fail.
        (site.folder / "blank.html").write_text("<title>blank</title>")
        chromium.get(f"{site.address}blank.html")
        chromium.execute_async_script(TRY_TO_SEND, other.address)
        assert {"/fetch", "/page", "/image.png", "/beacon"} <= set(other.asked)


def test_another_server_s_stream_is_refused_in_a_sentence(chromium, site, tmp_path):
    with Server(tmp_path) as other:
        chromium.get(f"{site.address}index.html?src={other.address}x.sodec")
        wait(chromium, lambda: "is on another server" in chromium.find_element("id", "problem").text)
        assert other.asked == []


# -- <sodec-img>


def write_gallery(site, body):
    script = '<script type="module" src="sodec-img.js"></script>'
    text = f"<!doctype html><html lang=en><meta charset=utf-8><title>gallery</title>{script}{body}"
    (site.folder / "gallery.html").write_text(text, encoding="utf-8")


def test_pictures_load_when_they_come_near_the_screen_and_first_all_fidelity_pictures(chromium, site):
    write_gallery(
        site,
        '<sodec-img src="pictures/photo.sodec" alt="a budgie"></sodec-img>'
        '<sodec-img src="pictures/grey.sodec" alt=""></sodec-img><div style="height: 5000px"></div>'
        '<sodec-img src="pictures/tiles.sodec" alt="far down"></sodec-img>',
    )
    open_page(chromium, site, "", "gallery.html")
    found = answers(chromium, count=2 * len(modes()))
    assert [one["mode"] for one in found] == sorted([one["mode"] for one in found], key=modes().index)
    assert "/pictures/tiles.sodec" not in site.asked
    chromium.execute_script("scrollTo(0, 6000)")
    answers(chromium, count=3 * len(modes()))
    assert site.asked.count("/pictures/tiles.sodec") == 1


def test_alternative_text_and_keyboard(chromium, site):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    write_gallery(
        site,
        '<sodec-img src="pictures/grey.sodec" alt="a grey budgie" controls></sodec-img>'
        '<sodec-img id="second" src="pictures/pixel.sodec" alt=""></sodec-img>',
    )
    open_page(chromium, site, "", "gallery.html")
    answers(chromium, count=2 * len(modes()))
    label = "return document.querySelector(arguments[0]).shadowRoot.querySelector('canvas:not([hidden])').outerHTML"
    assert 'role="img" aria-label="a grey budgie"' in chromium.execute_script(label, "sodec-img")
    assert 'role="presentation"' in chromium.execute_script(label, "#second")
    if "full" in modes():
        assert inner(chromium, "button") == "Show the fidelity picture"
        ActionChains(chromium).send_keys(Keys.TAB, Keys.ENTER).perform()
        assert inner(chromium, "button") == "Show the full picture"
    else:
        ActionChains(chromium).send_keys(Keys.TAB).perform()
        focused = "return document.activeElement.shadowRoot.activeElement.textContent"
        assert chromium.execute_script(focused) == "Save PNG"


def test_a_changed_source_is_shown_and_a_removed_element_stops(chromium, site):
    write_gallery(site, '<sodec-img src="pictures/photo.sodec"></sodec-img>')
    open_page(chromium, site, "", "gallery.html")
    answers(chromium, "sodec-header")
    chromium.execute_script("document.querySelector('sodec-img').src = 'pictures/pixel.sodec'")
    found = answers(chromium, count=len(modes()))
    assert inner(chromium, "canvas", "width") == 1
    assert pixels_of(found[-1]["pixels"]).shape == (1, 1, 3)
    chromium.execute_script(
        "const one = document.querySelector('sodec-img'); one.src = 'pictures/photo.sodec'; one.remove()"
    )
    chromium.execute_script(
        "document.body.append(Object.assign(document.createElement('sodec-img'), {src: 'pictures/grey.sodec'}))"
    )
    assert pixels_of(answers(chromium, count=2 * len(modes()))[-1]["pixels"]).shape == (200, 300, 3)


def test_it_fits_a_narrow_screen(chromium, site):
    driven.size(chromium, PHONE)
    open_page(chromium, site, "photo")
    answers(chromium, count=len(modes()))
    assert driven.overflow(chromium) <= 0
    width, height = (inner(chromium, "canvas:not([hidden])", f"client{side}") for side in ("Width", "Height"))
    assert 0.8 * PHONE < width <= PHONE
    assert height == pytest.approx(width * 512 / 768, abs=1)


def test_the_element_works_from_another_server_than_the_page(chromium, site, tmp_path):
    with Server(tmp_path) as other:
        (tmp_path / "page.html").write_text(
            f'<!doctype html><title>page</title><script type="module" src="{site.address}sodec-img.js"></script>'
            f'<sodec-img src="{site.address}pictures/pixel.sodec"></sodec-img>'
        )
        open_page(chromium, other, "", "page.html")
        assert len(answers(chromium, count=len(modes()))) == len(modes())


# -- served by `sodec ui`


@pytest.fixture
def ui(site, codec):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sodec[ui]'")
    from sodec.ui.app import served
    from sodec.ui.trial import Limits

    with served(codec, host="127.0.0.1", port=None, limits=Limits(), viewer=site.folder) as one:
        yield one


def status(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_sodec_ui_serves_it_too_with_threads_and_behind_its_guard(chromium, ui, site, codec):
    chromium.get(ui.address)
    wait(chromium, lambda: chromium.find_elements("css selector", "a[href='/viewer/']"))
    script = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    chromium.get(f"{ui.address}viewer/?src=pictures/grey.sodec")
    chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert chromium.execute_script("return crossOriginIsolated")
    for one in answers(chromium, count=len(modes())):
        off = np.abs(pixels_of(one["pixels"]) - expected_pixels(site, codec, "grey", one["mode"]))
        assert off.max() <= LEVELS
    (site.folder.parent / "secret.txt").write_text("secret")
    page = f"{ui.address}viewer/index.html"
    assert status(page) == 200
    assert status(page, Host="elsewhere.example") == 403
    assert status(page, **{"Sec-Fetch-Site": "cross-site"}) == 403
    for path in ("viewer/../secret.txt", "viewer/%2e%2e/secret.txt", "viewer/..%2fsecret.txt", "viewer/nothing"):
        assert status(f"{ui.address}{path}") == 404, path


def test_without_a_folder_sodec_ui_has_no_viewer(codec):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sodec[ui]'")
    from sodec.ui.app import served
    from sodec.ui.trial import Limits

    with served(codec, host="127.0.0.1", port=None, limits=Limits()) as one:
        assert status(f"{one.address}viewer/index.html") == 404
