"""Pages and reports as text: complete in one file, escaped, and with the codecs' figures.

pytest tests/test_pages.py
"""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import codec, folder, photo

from sodec.cli import main
from sodec.errors import UnsupportedPictureError
from sodec.evaluate import codecs, metrics, plots, run
from sodec.evaluate.compare import compare, compare_files, comparison_table, level_means
from sodec.evaluate.report import comparison_page
from sodec.pages.divider import Layer, divider
from sodec.pages.render import blocks, picture_uri

VOID = {"img", "input", "meta", "br", "path", "use"}
NAME = 'a "<script>alert(1)</script>" & b.png'


class Page(HTMLParser):
    """Elements with their attributes, and the text; fails if an element is closed that was not open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(str(text))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def ours():
    made = codecs.SodecCodec([10, 50])
    made.codec = codec()
    return made


@pytest.fixture(scope="module")
def comparison(ours):
    chosen, _ = metrics.available(["psnr"])
    return compare(NAME, photo(200, 120), ours, [10, 50], [codecs.rival("webp")], chosen, side=100)


def assert_self_contained(text):
    """Nothing is fetched: addresses are data or places in the page, and styles import nothing."""
    for tag, attributes in Page(text).elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:80]}>"
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


# -- pieces


def test_pictures_of_a_page_are_lossless():
    picture = photo(50, 40)
    kind, data = picture_uri(picture).split(",")
    assert kind == "data:image/webp;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)


def test_a_divider_of_two_pictures_has_nothing_to_choose():
    page = Page(divider("one", [Layer("original", photo(30, 20)), Layer("other", photo(30, 20, 1), ("9 bytes",))]))
    slider = page.all("input")[0]
    assert slider["aria-label"] == "one: divider between original and other"
    assert [image.get("class") for image in page.all("img") if "data-layer" in image] == ["left", "right"]
    assert not page.all("select")
    assert "9 bytes" in page.text


def test_a_single_picture_has_no_divider():
    page = Page(divider("one", [Layer("decoded", photo(30, 20))]))
    assert len(page.all("img")) == 1
    assert not page.all("input")


def test_the_strip_has_a_row_per_level_with_the_original_in_front():
    layers = [Layer("original", photo(30, 20)), *(Layer(f"{n}", photo(30, 20, n), row=n // 2) for n in range(4))]
    details = [image["data-copy"] for image in Page(divider("one", layers)).all("img") if "data-copy" in image]
    assert details == ["0", "1", "2", "0", "3", "4"]


def test_blocks_are_tables_and_paragraphs():
    page = Page(blocks("| codec | bytes |\n| ----- | ----: |\n| <a>   |    12 |\n\nskipped: b.png: <no> picture\n"))
    assert [tag for tag, _ in page.elements if tag in ("table", "th", "td", "p")] == [
        "table", "th", "th", "th", "td", "p"
    ]  # fmt: skip
    assert "<a>" in page.text
    assert "skipped: b.png: <no> picture" in page.text


def test_inline_plots_take_the_page_s_colours():
    pytest.importorskip("matplotlib")
    rows = [run.Mean("sodec", q, 1, 100.0 * q, 0.1 * q, 0, 0, {"psnr": 20.0 + q}) for q in (1, 2, 3)]
    svg = plots.inline(rows, "psnr")
    assert svg.startswith('<svg role="img" aria-label="PSNR, dB over bits per pixel"')
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert not re.search(r' id="(figure|axes|patch|text|xtick)_1"', svg)
    assert "bits per pixel" in Page(svg).text


# -- comparisons


def test_rivals_are_matched_to_our_bytes(comparison, ours):
    webp = codecs.rival("webp")
    for quality, (own, other) in zip((10, 50), comparison.levels, strict=True):
        assert (own.row.setting, own.row.bytes) == (quality, len(ours.encode(photo(200, 120), quality)))
        sizes = [len(webp.encode(photo(200, 120), setting)) for setting in range(41)]
        nearest = min(sizes, key=lambda size: abs(np.log(size / own.row.bytes)))
        assert other.row.bytes == nearest


def test_the_middle_of_a_large_picture_is_shown_and_the_whole_is_measured(comparison):
    assert comparison.cropped
    assert np.array_equal(comparison.shown, photo(200, 120)[10:110, 50:150])
    own = comparison.levels[0][0]
    decoded = np.asarray(codec().decompress(codec().compress(photo(200, 120), 10)))
    assert np.array_equal(own.shown, decoded[10:110, 50:150])
    assert own.row.metrics["psnr"] == pytest.approx(metrics.psnr(photo(200, 120), decoded))
    assert own.row.bpp == own.row.bytes * 8 / (200 * 120)


def test_means_are_by_level_whatever_the_rival_s_setting(comparison, ours):
    chosen, _ = metrics.available(["psnr"])
    other = compare("b", photo(90, 60, 3), ours, [10, 50], [codecs.rival("webp")], chosen, side=100)
    found = {(mean.codec, mean.setting): mean.pictures for mean in level_means([comparison, other])}
    assert found == {("sodec", 10): 2, ("webp", 10): 2, ("sodec", 50): 2, ("webp", 50): 2}


def test_a_comparison_s_page_is_whole_escaped_and_has_the_figures(comparison):
    chosen, _ = metrics.available(["psnr"])
    text = comparison_page([comparison], chosen, {"heic": "heic needs <that>"})
    assert_self_contained(text)
    page = Page(text)
    assert page.text.count(NAME) >= 1
    assert page.all("script") == [{}]  # ours alone
    assert "Shown: the middle 100x100" in page.text
    assert "heic: heic needs <that>" in page.text
    for level in comparison.levels:
        for version in level:
            assert f"{version.row.bytes:,}" in page.text
            assert f"{version.row.metrics['psnr']:.2f}" in page.text
    assert comparison_table(comparison, chosen).count("\n") == 1 + 4


def test_bad_pictures_are_left_out_by_name(tmp_path, ours):
    (tmp_path / "bad.png").write_text("no picture")
    Image.fromarray(photo(40, 30)).save(tmp_path / "good.png")
    found, skipped = compare_files([tmp_path / "bad.png", tmp_path / "good.png"], ours, [10], [], [])
    assert [one.name for one in found] == ["good.png"]
    assert list(skipped) == [str(tmp_path / "bad.png")]
    with pytest.raises(UnsupportedPictureError, match=r"bad\.png"):
        compare_files([tmp_path / "bad.png"], ours, [10], [], [])


# -- the commands


def test_compare_writes_a_page(tmp_path):
    for number in range(2):
        Image.fromarray(photo(60, 40, number)).save(tmp_path / f"{number}.png")
    file = tmp_path / "report.html"
    arguments = ["compare", str(tmp_path), "-o", str(file), "--against", "webp,jpeg", "-q", "20", "--metrics", "psnr"]
    result = CliRunner().invoke(main, [*arguments, "--weights", str(folder())])
    assert result.exit_code == 0, result.output
    assert "2 pictures" in result.output
    text = file.read_text(encoding="utf-8")
    assert_self_contained(text)
    page = Page(text)
    assert len(page.all("select")) == 4
    assert "Means" in page.text
    result = CliRunner().invoke(main, [*arguments[:3], str(tmp_path / "no" / "report.html")])
    assert result.exit_code == 2
    assert "there is no folder" in result.output


def test_eval_writes_a_page_of_the_whole_evaluation(tmp_path):
    for number in range(2):
        Image.fromarray(photo(60, 40, number)).save(tmp_path / f"{number}.png")
    file = tmp_path / "report.html"
    arguments = ["eval", str(tmp_path), "--html", str(file), "--against", "webp", "--qualities", "10,50,90"]
    arguments += ["--metrics", "psnr", "--sheet", "1", "--weights", str(folder())]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    text = file.read_text(encoding="utf-8")
    assert_self_contained(text)
    page = Page(text)
    # The table that the terminal gets, and one picture at two of the qualities.
    for line in result.stdout.splitlines():
        if line.startswith("| sodec"):
            assert all(cell.strip() in page.text for cell in line.strip("|").split("|"))
    shown = [image["alt"] for image in page.all("img") if "data-layer" in image]
    assert shown[:2] == ["0.png: original", "0.png: sodec, 10"]
    assert len(shown) == 5
