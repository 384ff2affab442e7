"""The page of `sodec ui` and the reports in a real browser: they show the figures that the codec gives elsewhere.

pytest tests/test_browser.py
"""

import functools
import http.server
import io
import os
import threading
import time
import urllib.request
from pathlib import Path

import browser as driven
import numpy as np
import pytest
from PIL import Image
from tiny import codec, photo
from visitor import Visitor

from sodec.evaluate import codecs, metrics
from sodec.evaluate.compare import compare
from sodec.evaluate.report import comparison_page

if driven.missing():
    pytest.skip(driven.missing(), allow_module_level=True)

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

PHONE = 360


@pytest.fixture(scope="module")
def chromium():
    with driven.chromium() as browser:
        yield browser


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def wait(browser, condition, seconds=60):
    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: condition())


def place(browser):
    """Position of the divider on the page, in per cent."""
    return float(
        browser.execute_script("return document.querySelector('.divider').style.getPropertyValue('--at')")[:-1]
    )


def drag(browser, share):
    """Moves the divider to a share of the picture's width by mouse."""
    frame = find(browser, ".divider-frame")
    across = frame.size["width"]
    start = place(browser) / 100 * across - across / 2
    ActionChains(browser).move_to_element_with_offset(frame, int(start), 0).click_and_hold().move_by_offset(
        round(share * across - across / 2 - start), 0
    ).release().perform()


# -- a report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    ours = codecs.SodecCodec([10, 50])
    ours.codec = codec()
    chosen, _ = metrics.available(["psnr"])
    one = compare("a <b>name</b>.png", photo(240, 160), ours, [10, 50], [codecs.rival("webp")], chosen)
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(comparison_page([one], chosen, {}), encoding="utf-8")
    return file


@pytest.fixture
def reported(chromium, report):
    driven.size(chromium, 1100)
    chromium.get(report.as_uri())
    return chromium


def test_a_report_s_divider_follows_mouse_and_keys(reported):
    assert place(reported) == 50
    drag(reported, 0.25)
    assert place(reported) == pytest.approx(25, abs=1)
    slider = find(reported, ".divider input")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert place(reported) == pytest.approx(26, abs=1)
    slider.send_keys(Keys.END)
    assert place(reported) == 100
    assert slider.get_attribute("aria-valuetext") == "100 %"


def test_left_of_the_divider_is_one_picture_and_right_of_it_the_other(reported):
    right = Select(find(reported, "select[data-side=right]"))
    right.select_by_index(4)  # after the original, sodec and WebP at one quality, sodec at the other
    chosen = "a <b>name</b>.png: " + right.first_selected_option.text
    assert "webp" in chosen
    shown = [image.get_attribute("alt") for image in reported.find_elements(By.CSS_SELECTOR, ".divider-frame img")
             if image.is_displayed()]  # fmt: skip
    assert shown == ["a <b>name</b>.png: original", chosen]
    assert f"original and {chosen}" in find(reported, ".divider input").get_attribute("aria-label")
    drag(reported, 0.5)
    # The pixels: left of the line those of the original, exactly.
    frame = find(reported, ".divider-frame")
    seen = np.asarray(Image.open(io.BytesIO(frame.screenshot_as_png)).convert("RGB"))
    assert seen.shape == (160, 240, 3)
    assert np.array_equal(seen[20:60, 10:90], photo(240, 160)[20:60, 10:90])
    assert not np.array_equal(seen[20:60, 150:230], photo(240, 160)[20:60, 150:230])


def test_a_report_holds_all_that_it_shows(reported, report):
    driven.requests(reported)
    reported.get(report.as_uri())
    assert driven.requests(reported) == [report.as_uri()]
    widths = reported.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert set(widths) == {240}
    assert len(widths) == 1 + 4 + 2 * 3  # the pictures, and a strip per quality


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_fits_a_phone_and_the_scheme(reported, scheme):
    driven.size(reported, PHONE)
    told = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    reported.execute_cdp_cmd("Emulation.setEmulatedMedia", told)
    assert driven.overflow(reported) <= 0
    colour = reported.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[scheme]


# -- sodec ui


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The photo that is on the page at the start."""
    file = tmp_path_factory.mktemp("first") / "first.png"
    Image.fromarray(photo(240, 160)).save(file)
    return file


@pytest.fixture(scope="module")
def server(first):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sodec[ui]'")
    from sodec.ui.app import served
    from sodec.ui.trial import Limits

    limits = Limits(bytes=400_000, pixels=100_000)
    with served(codec(), host="127.0.0.1", port=None, limits=limits, photo=first) as one:
        yield one


@pytest.fixture
def page(chromium, server):
    """The page, fresh, with its photo, and AVIF beside it."""
    driven.size(chromium, 1280)
    driven.requests(chromium)
    chromium.get(server.address)
    wait(chromium, lambda: figure(chromium, "AVIF"))
    return chromium


def figure(browser, title, label="bytes"):
    """A number on the page, of the codec that the table's title names; None if it is missing."""
    return browser.execute_script(
        """for (const table of document.querySelectorAll(".trial-figures table")) {
             if (!table.caption.textContent.startsWith(arguments[0])) continue;
             return table.querySelector(`[data-figure="${arguments[1]}"]`).textContent;
           }""", title, label,
    )  # fmt: skip


def shown_bytes(browser):
    return int(figure(browser, "sodec").replace(",", ""))


def drop(browser, path):
    find(browser, "#drop input[type=file]").send_keys(str(path))


def name(browser):
    return find(browser, ".trial-name b").text


def test_quality_moves_the_bytes_and_nothing_leaves_the_machine(page, server, first):
    assert figure(page, "sodec, quality 25") == f"{len(codec().compress(first, 25)):,}"
    drag(page, 0.75)
    find(page, "#quality input[type=range]").send_keys(Keys.END)
    wait(page, lambda: figure(page, "sodec, quality 100"))
    assert figure(page, "sodec") == f"{len(codec().compress(first, 100)):,}"
    wait(page, lambda: figure(page, "AVIF"))
    assert place(page) == pytest.approx(75, abs=1)  # where it was left
    assert "ms" in find(page, ".trial-times").text
    asked = driven.requests(page)
    assert asked
    assert all(url.startswith(server.address) for url in asked), asked


def test_browsers_are_told_to_reach_nothing_else(server):
    with urllib.request.urlopen(server.address) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.read().count(b"https://fonts.") == 0


def test_bytes_and_another_rival(page):
    find(page, "#target input[value=bytes]").click()
    wait(page, lambda: find(page, "#bytes input[type=number]").is_displayed())
    field = find(page, "#bytes input[type=number]")
    field.clear()
    field.send_keys("7")  # below the least: the page shows 500 bytes, and does not lose what is typed next
    wait(page, lambda: shown_bytes(page) <= 500)
    field.send_keys("00")
    wait(page, lambda: 600 < shown_bytes(page) <= 700)
    field.send_keys("0000", Keys.ENTER)  # above the most
    wait(page, lambda: 700 < shown_bytes(page) <= 50_000)
    find(page, "#rival input[value=webp]").click()
    wait(page, lambda: figure(page, "WebP"))
    assert not figure(page, "AVIF")


def test_a_photo_there_and_back_through_files(page, tmp_path):
    Image.fromarray(photo(200, 120)).save(tmp_path / "mine.png")
    told = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", told)
    drop(page, tmp_path / "mine.png")
    wait(page, lambda: name(page) == "mine.png" and figure(page, "AVIF"))
    for button, file in (("#save-stream", "mine.sodec"), ("#save-png", "mine.png")):
        find(page, button).click()
        wait(page, (tmp_path / "saved" / file).exists)
    stream = (tmp_path / "saved" / "mine.sodec").read_bytes()
    assert stream == codec().compress(tmp_path / "mine.png", 25)
    expected = np.asarray(codec().decompress(stream))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "saved" / "mine.png")), expected)
    drop(page, tmp_path / "saved" / "mine.sodec")
    wait(page, lambda: name(page) == "mine.sodec")
    assert figure(page, "sodec, quality 25") == f"{len(stream):,}"
    assert [side.text for side in page.find_elements(By.CSS_SELECTOR, ".divider-names span")] == [
        "fidelity picture", "decoded"
    ]  # fmt: skip


def test_what_can_t_be_shown_is_said_in_a_sentence_and_the_page_goes_on(page, tmp_path, server):
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.new("RGB", (400, 300)).save(tmp_path / "wide.png")
    (tmp_path / "broken.sodec").write_bytes(codec().compress(photo(40, 30))[:-2] + b"xx")
    for file, sentence in (
        ("text.jpg", "text.jpg is not a picture that Pillow can read."),
        ("wide.png", "wide.png has 400x300 pixels; this page takes 0.1 million at most (--max-megapixels)"),
        ("broken.sodec", "broken.sodec: truncated or altered stream"),
    ):
        drop(page, tmp_path / file)
        wait(page, lambda text=sentence: text in find(page, "#problem").text)
        assert name(page) == "first.png"
    (tmp_path / "heavy.png").write_bytes(bytes(500_000))
    drop(page, tmp_path / "heavy.png")
    wait(page, lambda: "exceed the maximum allowed size" in find(page, "body").text)
    Image.fromarray(photo(64, 64)).save(tmp_path / "good.png")
    drop(page, tmp_path / "good.png")
    wait(page, lambda: name(page) == "good.png")
    assert not page.find_elements(By.CSS_SELECTOR, "#problem p")


def test_an_upload_is_kept_nowhere_and_shown_to_nobody_else(page, tmp_path, server):
    Image.fromarray(photo(64, 64)).save(tmp_path / "mine-alone.png")
    drop(page, tmp_path / "mine-alone.png")
    wait(page, lambda: name(page) == "mine-alone.png")
    assert not [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    assert server.events.uploads.held == 0
    mine = page.current_window_handle
    page.switch_to.new_window("tab")
    page.get(server.address)
    wait(page, lambda: figure(page, "AVIF"))
    assert name(page) == "first.png"
    assert "mine-alone" not in page.page_source
    assert len(server.events.sessions) >= 2
    page.get("about:blank")
    page.switch_to.window(mine)
    page.get("about:blank")
    wait(page, lambda: len(server.events.sessions) == 0)
    page.switch_to.window(page.window_handles[-1])
    page.close()
    page.switch_to.window(mine)


def test_visitors_at_once_wait_for_each_other(server, first):
    visitors = {quality: Visitor(server.address) for quality in range(40, 44)}
    numbers = visitors[40].numbers()
    for quality, visitor in visitors.items():
        visitor.event(numbers["open"], "none")
        assert visitor.join(numbers["code"], ["quality", quality, 5000])[0] == 200
    for quality, visitor in visitors.items():
        shown = str(visitor.answers())
        assert f"sodec, quality {quality}" in shown
        assert f">{len(codec().compress(first, quality)):,}<" in shown


def test_a_page_of_another_address_reaches_nothing(chromium, server, tmp_path):
    """It may send what a form or an image can send; none of it is answered or kept."""
    (tmp_path / "index.html").write_text("<title>another</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        chromium.get(f"http://127.0.0.1:{other.server_port}/")
        sent = chromium.execute_async_script(
            """const [address, done] = arguments;
               const form = new FormData();
               form.append("files", new Blob(["x".repeat(1000)]), "x.png");
               const event = JSON.stringify({fn_index: 1, data: ["x"], session_hash: "abcdefghij"});
               const attempts = [
                 ["gradio_api/upload", {method: "POST", mode: "no-cors", body: form}],
                 ["gradio_api/upload", {method: "POST", body: form}],
                 ["gradio_api/queue/join", {method: "POST", mode: "no-cors", body: event}],
                 ["config", {}],
               ].map(([path, options]) => fetch(address + path, options).then((r) => r.type + r.status, String));
               Promise.all(attempts).then(done);""",
            server.address,
        )
        other.shutdown()
    assert all("TypeError" in one or one == "opaque0" for one in sent), sent
    assert server.events.uploads.held == 0
    assert "abcdefghij" not in server.events.sessions._held


def test_a_page_whose_photo_was_dropped_says_so(page, server):
    server.events.sessions._held.clear()
    find(page, "#quality input[type=range]").send_keys(Keys.END)
    wait(page, lambda: "no longer holds this page's photo" in find(page, "#problem").text)


def test_the_page_fits_a_phone(page):
    driven.size(page, PHONE)
    time.sleep(0.2)
    assert driven.overflow(page) <= 0
    assert find(page, ".divider-frame").size["width"] > 0.6 * PHONE
