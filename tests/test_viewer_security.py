"""The page that decodes streams in a browser: what it can send and to whom, and `sodec ui`, which serves it too."""

import urllib.error
import urllib.request

import numpy as np
import pytest
from serving import Server
from viewing import (
    LEVELS,
    LISTEN,
    MODES,
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

__all__ = ["chromium", "codec", "fresh", "runtime", "site"]  # fixtures


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
