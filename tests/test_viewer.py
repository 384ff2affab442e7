"""The page that decodes streams in a browser: its command, pixels, errors, and what it reaches.

pytest tests/test_viewer.py -s     prints the seconds to the first and to the full picture
"""

import base64
import json
import urllib.error
import urllib.request
import zlib

import browser as driven
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load
from serving import SHARED, Server
from viewing import (
    LEVELS,
    LISTEN,
    MODES,
    TESTS,
    WAIT_S,
    answers,
    chromium,
    codec,
    drop,
    expected_pixels,
    fresh,
    inner,
    open_page,
    pixels_of,
    runtime,
    site,
    wait,
)  # fmt: skip

from sodec.cli import main
from sodec.errors import MissingPackageError, OutputError, WeightsError
from sodec.pages import viewer
from sodec.weights import find, graphs

__all__ = ["chromium", "codec", "fresh", "runtime", "site"]  # fixtures
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


# -- the command


def test_the_page_s_own_files_are_complete_and_no_more():
    files = viewer.page_files()
    assert {"index.html", "page.js", "sodec-img.js", "worker.js", "format/container.js"} <= files.keys()
    assert not [name for name in files if "test" in name or name.startswith("node/")]


def test_weights_are_those_that_the_graphs_name_and_at_most_20_mb():
    files = viewer.weights_files(find("lite"))
    manifest = json.loads(files["weights.json"])
    listed = [manifest["coding"], *manifest["tensors"], *manifest["graphs"].values()]
    assert {one["path"] for one in listed} == files.keys() - {"weights.json"}
    assert all(len(files[one["path"]]) == one["bytes"] for one in listed)
    assert sum(one["bytes"] for one in listed) <= 20e6
    for name, graph in manifest["graphs"].items():
        tensors = {}
        for part in manifest["tensors"][: graph["tensors"]]:
            planes = np.frombuffer(zlib.decompress(files[part["path"]]), np.uint8)
            tensors |= load(planes.reshape(2, -1).T.tobytes())
        needed = graphs.weights_of(files[f"weights/{name}.onnx"])
        assert needed
        assert all(np.array_equal(tensors[tensor], find("lite").tensors()[tensor]) for tensor in needed)
        assert not [tensor for tensor in tensors if tensor.startswith("analysis.")]


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


def test_the_command_writes_the_page_once(runtime, tmp_path):
    command = ["viewer", str(tmp_path / "site"), "--onnxruntime", str(runtime)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert f"weights of lite {find('lite').version}" in done.output
    site = tmp_path / "site"
    written = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    expected = viewer.page_files() | viewer.weights_files(find("lite"))
    assert written == expected.keys() | {f"onnxruntime/{name}" for name in viewer.RUNTIME_FILES}
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, "exists" in again.output) == (2, True)
    assert CliRunner().invoke(main, [*command, "--overwrite"]).exit_code == 0


def test_weights_without_graphs_are_refused():
    from tiny import folder

    from sodec.weights import resolve

    with pytest.raises(WeightsError, match="export-onnx"):
        viewer.weights_files(resolve("lite", folder()))


# -- in a browser


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
    answers(chromium, count=len(MODES))
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


@pytest.mark.parametrize(
    ("source", "sentence"), [("http://", "http:// is not an address."), ("data:,x", "another server")]
)
def test_addresses_that_can_t_be_opened_are_refused_in_a_sentence(chromium, site, source, sentence):
    chromium.get(f"{site.address}index.html?src={source}")
    wait(chromium, lambda: sentence in chromium.find_element("id", "problem").text)


def test_a_name_that_is_no_utf_8_is_an_address_too(chromium, site):
    open_page(chromium, site, "%25E0")
    (said,) = answers(chromium, "sodec-error")
    assert said["message"] == f"The file {site.address}pictures/%E0.sodec can't be fetched: the server answers 404."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: None, "The decoder's file /weights/fidelity.packed can't be fetched: the server answers 404."),
        (lambda data: data[:-1], "The decoder's file /weights/fidelity.packed is damaged, or of other weights than"),
    ],
    ids=["missing", "cut short"],
)
def test_weights_that_are_not_whole_are_told(chromium, site, change, sentence):
    """In a fresh browser: the other one has them in its cache."""
    file = site.folder / "weights/fidelity.packed"
    original = file.read_bytes()
    file.unlink()
    if (changed := change(original)) is not None:
        file.write_bytes(changed)
    try:
        with driven.chromium() as browser:
            open_page(browser, site, "pixel")
            (said,) = answers(browser, "sodec-error")
            assert said["message"].startswith(sentence)
            file.write_bytes(original)
            drop(browser, site, "pixel")  # and the next file finds them
            answers(browser, count=len(MODES))
    finally:
        file.write_bytes(original)


def test_a_file_beyond_100_mb_is_refused_before_it_is_read(chromium, site):
    open_page(chromium, site, "pixel")
    answers(chromium, count=len(MODES))
    chromium.execute_script(
        """const file = new File(["x"], "film.mp4");
           Object.defineProperty(file, "size", {value: 4e9});
           document.querySelector("sodec-img").open(file);"""
    )
    (said,) = answers(chromium, "sodec-error")
    assert said["message"] == "The file has 4000 MB; at most 100 are taken."


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
    for one in answers(chromium, count=len(MODES)):
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
