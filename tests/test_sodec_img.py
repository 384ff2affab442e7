"""<sodec-img>, the element for other people's pages, in a browser.

pytest tests/test_sodec_img.py
"""

import browser as driven
import pytest
from serving import Server
from viewing import MODES, answers, chromium, codec, fresh, inner, open_page, pixels_of, runtime, site

__all__ = ["chromium", "codec", "fresh", "runtime", "site"]  # fixtures
PHONE = 360


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
    found = answers(chromium, count=2 * len(MODES))
    assert [one["mode"] for one in found] == sorted([one["mode"] for one in found], key=MODES.index)
    assert "/pictures/tiles.sodec" not in site.asked
    chromium.execute_script("scrollTo(0, 6000)")
    answers(chromium, count=3 * len(MODES))
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
    answers(chromium, count=2 * len(MODES))
    label = "return document.querySelector(arguments[0]).shadowRoot.querySelector('canvas:not([hidden])').outerHTML"
    assert 'role="img" aria-label="a grey budgie"' in chromium.execute_script(label, "sodec-img")
    assert 'role="presentation"' in chromium.execute_script(label, "#second")
    assert inner(chromium, "button") == "Show the fidelity picture"
    ActionChains(chromium).send_keys(Keys.TAB, Keys.ENTER).perform()
    assert inner(chromium, "button") == "Show the full picture"


def test_a_changed_source_is_shown_and_a_removed_element_stops(chromium, site):
    write_gallery(site, '<sodec-img src="pictures/photo.sodec"></sodec-img>')
    open_page(chromium, site, "", "gallery.html")
    answers(chromium, "sodec-header")
    chromium.execute_script("document.querySelector('sodec-img').src = 'pictures/pixel.sodec'")
    found = answers(chromium, count=len(MODES))
    assert inner(chromium, "canvas", "width") == 1
    assert pixels_of(found[-1]["pixels"]).shape == (1, 1, 3)
    chromium.execute_script(
        "const one = document.querySelector('sodec-img'); one.src = 'pictures/photo.sodec'; one.remove()"
    )
    chromium.execute_script(
        "document.body.append(Object.assign(document.createElement('sodec-img'), {src: 'pictures/grey.sodec'}))"
    )
    assert pixels_of(answers(chromium, count=2 * len(MODES))[-1]["pixels"]).shape == (200, 300, 3)


def test_it_fits_a_narrow_screen(chromium, site):
    driven.size(chromium, PHONE)
    open_page(chromium, site, "photo")
    answers(chromium, count=len(MODES))
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
        assert len(answers(chromium, count=len(MODES))) == len(MODES)
