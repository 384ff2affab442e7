"""The page that decodes streams in a browser: what it says of files, addresses and weights that it can't use."""

import time

import browser as driven
import pytest
from serving import Server
from viewing import MODES, answers, chromium, codec, drop, fresh, inner, open_page, runtime, site, wait

from sodec.weights import find

__all__ = ["chromium", "codec", "fresh", "runtime", "site"]  # fixtures


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


def test_after_an_error_nothing_is_shown_as_loading(site):
    """In a fresh browser, which goes on loading the decoder for the next file."""
    with driven.chromium() as browser:
        open_page(browser, site, "damaged")
        answers(browser, "sodec-error")
        wait(browser, lambda: "/weights/decoder.packed" in site.asked)
        time.sleep(1)
        assert inner(browser, ".wait") == ""


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
def test_incomplete_weights_are_reported_and_the_next_file_can_work(chromium, site, change, sentence):
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
