"""The page: complete, self-contained, escaped, and the whole report reproducible byte for byte."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from dgm.reporting.files import make_report
from dgm.reporting.published import CATALOGUE
from tests.reporting.made_up import BOUND, metrics, whole_run


class Links(HTMLParser):
    """Collects what the page loads or links to, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.anchors |= {f"#{value}" for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(root: Path) -> str:
    return make_report("cpu", {}, root).files["index.html"].decode("utf-8")


def links(html: str) -> Links:
    parser = Links()
    parser.feed(html)
    assert not parser.open
    return parser


def rows_of(html: str, section: str) -> list[list[str]]:
    """The cells of every row of every table under one h2."""
    part = html.split(f">{section}</h2>")[1].split("<h2")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part)
    return [cells for row in rows if (cells := re.findall(r"<td[^>]*>(.*?)</td>", row))]


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn")
    html = page(tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script", html)
    parser = links(html)
    inside = [target for target in parser.targets if target.startswith("#")]
    assert set(inside) <= parser.anchors
    written = {*make_report("cpu", {}, tmp_path).files, "samples/pixelcnn.png", "data:,"}
    assert {target for target in parser.targets if not target.startswith("#")} <= written
    assert "samples/pixelcnn.png" in parser.targets


def test_the_page_shows_results_provenance_and_compression(tmp_path: Path) -> None:
    for files in (whole_run(tmp_path, "real_nvp", **BOUND), whole_run(tmp_path, "pixelcnn")):
        files.samples.unlink()
    html = page(tmp_path)
    for text in (
        "3.457 ± 0.008",
        "≤ 3.457 ± 0.008",
        "0123456789 + local changes",
        "run-id",
        "2026-01-02 03:04:05 UTC",
        "bit for bit",
        "+0.07 %",
    ):
        assert text in html, text
    assert "No samples in this profile yet" in html
    assert f"2 of {len(CATALOGUE)} models have a result" in html


def test_the_page_explains_what_a_reader_will_stumble_over(tmp_path: Path) -> None:
    html = " ".join(page(tmp_path).split())
    for text in ("6.003 - 1.8 = 4.203", "plus 1/12", "averages the logits", "not the published size"):
        assert text in html, text


def test_the_terms_of_a_bound_stand_beside_both_bounds(tmp_path: Path) -> None:
    terms = {"reconstruction": 3.0625, "kl_layer_01": 0.5}
    weighted = BOUND | {"elbo_test_bits_per_subpixel": 3.5625, "likelihood": "importance-weighted (64)"}
    elbo = BOUND | {"likelihood": "elbo"}
    metrics(tmp_path, "vae", terms_bits_per_subpixel=terms, test_bits_per_subpixel=3.5, **weighted)
    metrics(tmp_path, "vae_iaf", terms_bits_per_subpixel={"kl": 7.0}, test_bits_per_subpixel=7.0, **elbo)
    cells = rows_of(page(tmp_path), "What the bounds consist of")
    assert ["VAE", "3.5625", "3.5000", "0.0625", "importance-weighted (64)"] in cells
    assert ["VAE with IAF", "7.0000", "", "", "elbo"] in cells
    parts = [row for row in cells if row[0] == "VAE" and len(row) == 3]
    assert parts == [
        ["VAE", "reconstruction", "3.0625"],
        ["VAE", "kl layer 01", "0.5000"],
        ["VAE", "sum: the one-sample bound", "3.5625"],
    ]


def test_a_start_stands_beside_the_end_of_training(tmp_path: Path) -> None:
    whole_run(tmp_path, "nice")
    whole_run(tmp_path, "uniform").curve.unlink()
    cells = rows_of(page(tmp_path), "Training curves")
    assert cells == [["NICE", "8.000", "5.100", "2.900", "ZCA whitening with a factorised logistic"]]


def test_the_page_says_what_training_cost_and_what_is_known_of_the_published_run(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn_pp")
    cells = {row[0]: row[1:] for row in rows_of(page(tmp_path), "What training cost")}
    assert cells["PixelCNN++ †"][:6] == ["cpu", "102", "64,000", "631", "0.000768", "1.00"]
    assert "5 days to 2.92" in cells["PixelCNN++ †"][6]
    assert cells["NICE"][:6] == [""] * 6


def test_a_name_cannot_break_the_page(tmp_path: Path) -> None:
    metrics(tmp_path, "<b>&x")
    html = page(tmp_path)
    links(html)
    assert "&lt;b&gt;&amp;x" in html


def test_equal_run_files_give_equal_bytes(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn")
    whole_run(tmp_path, "nice", test_bits_per_subpixel=4.5)
    assert make_report("cpu", {}, tmp_path) == make_report("cpu", {}, tmp_path)


def test_reporting_never_imports_torch() -> None:
    code = "import sys, dgm.reporting.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
