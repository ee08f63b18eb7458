"""The page: complete, self-contained, escaped, and the whole report reproducible byte for byte."""

from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgm.errors import StageError
from dgm.reporting.files import make_report
from dgm.reporting.page_images import extremes, read_samples
from dgm.reporting.published import CATALOGUE
from dgm.reporting.rows import Row
from dgm.runs.files import RunFiles
from dgm.runs.picture import has_completions, save_picture, untiled
from tests.reporting.made_up import BOUND, metrics, whole_run

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """Collects what the page loads or links to, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.targets += values
        self.loaded += [(tag, value) for value in values]
        self.anchors |= {f"#{value}" for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(root: Path, test_images: np.ndarray | None = None) -> str:
    report = make_report("cpu", {}, root, test_images=test_images)
    return report.files["index.html"].decode("utf-8")


def links(html: str) -> Links:
    parser = Links()
    parser.feed(html)
    assert not parser.open
    return parser


def rows_of(html: str, section: str) -> list[list[str]]:
    """The cells of every row of every table under one h2, or in the card of one model."""
    is_card = section in CATALOGUE
    start, end = (f'id="card-{section}"', "</article>") if is_card else (f">{section}</h2>", "<h2")
    rows = re.findall(r"<tr>(.*?)</tr>", html.split(start)[1].split(end)[0])
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows if "<td" in row]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells]


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    """Pictures, style and script are in it, and its policy lets a browser load nothing else."""
    with_samples(whole_run(tmp_path, "pixelcnn"))
    html = page(tmp_path)
    assert not re.search(r"@import|url\(|<script [^>]*src|<iframe|<object", html)
    parser = links(html)
    loaded = [value for tag, value in parser.loaded if tag != "a"]
    assert len(loaded) > 3 and all(value.startswith("data:") for value in loaded)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy and policy[1].startswith(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha"
    )
    inside = {target for target in parser.targets if target.startswith("#")}
    assert inside <= parser.anchors
    files = {target for target in parser.targets if not target.startswith(("#", "data:", "https://", "../../"))}
    assert files <= set(make_report("cpu", {}, tmp_path).files)
    project = {target.removeprefix("../../") for target in parser.targets if target.startswith("../../")}
    assert len(project) > len(CATALOGUE) / 2 and all((ROOT / name).exists() for name in project)


def test_tables_and_pictures_are_for_those_too_who_do_not_see_them(tmp_path: Path) -> None:
    with_samples(whole_run(tmp_path, "pixelcnn"))
    html = page(tmp_path, np.zeros((10000, 3, 32, 32), dtype=np.uint8))
    titles = re.findall(r"<th[ >][^>]*>?", html)
    assert titles and all('scope="col"' in title or 'scope="row"' in title for title in titles)
    pictures = re.findall(r"<img[^>]*>", html)
    assert len(pictures) >= 5 and all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)
    assert html.count("<h1") == 1 and '<html lang="en">' in html and "<main>" in html


def test_every_model_has_a_card_with_its_text_and_what_was_measured(tmp_path: Path) -> None:
    with_samples(whole_run(tmp_path, "pixelcnn"))
    html = page(tmp_path, np.zeros((10000, 3, 32, 32), dtype=np.uint8))
    for model in CATALOGUE:
        assert html.count(f'id="card-{model}"') == 1 and f'href="#card-{model}"' in html
    card = html.split('id="card-pixelcnn"')[1].split("</article>")[0]
    for text in (
        "<math",
        "arxiv.org/abs/1601.06759",
        "dgm/models/pixelcnn.py",
        "3.457 ± 0.008",
        "3.14 (3.08)",
        "64,000",
    ):
        assert text in card, text
    assert "16 images drawn from the model" in card and "The upper half is given, the lower half is drawn." in card
    assert "The 49,152 sub-pixels of the samples" in card
    assert "Training curve of PixelCNN" in card
    other = html.split('id="card-nice"')[1].split("</article>")[0]
    assert "Ours, test" not in other and "published only" in other


def test_the_hardest_test_image_is_the_one_of_the_most_bits(tmp_path: Path) -> None:
    nats = np.full(20, -2000.0)
    nats[3], nats[7] = -9000.0, -100.0
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] + np.zeros((20, 3, 32, 32), dtype=np.uint8)
    row = Row(CATALOGUE["pixelcnn"], nats=nats)
    ends = extremes(row, images)
    assert ends is not None
    for end, shown, bits in zip(ends, (7, 3), (100.0, 9000.0), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(end.picture.uri.split(",")[1])))
        assert picture.getpixel((5, 5)) == (shown, shown, shown)
        assert end.bits[0] == pytest.approx(bits / (3072 * math.log(2)))
    assert extremes(replace(row, nats=np.full(21, -1.0)), images) is None


def test_samples_are_read_back_from_their_picture(tmp_path: Path) -> None:
    """16 samples in two rows, 8 test images and their completions: only the samples are counted."""
    drawn = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    for count in (0, 8):
        save_picture(tmp_path / "made.png", drawn, drawn[:count], drawn[:count])
        pixels = np.asarray(Image.open(tmp_path / "made.png"))
        np.testing.assert_array_equal(untiled(pixels), drawn.transpose(0, 2, 3, 1))
        assert has_completions(pixels) == bool(count)
    (tmp_path / "made.png").write_bytes(b"no picture")
    with pytest.raises(StageError, match=r"made\.png: .*draw the samples again"):
        read_samples(tmp_path / "made.png", "MADE")


def with_samples(files: RunFiles) -> None:
    drawn = np.full((16, 3, 32, 32), 7, dtype=np.uint8)
    save_picture(files.samples, drawn, drawn[:8], drawn[:8])


def test_the_page_shows_results_provenance_and_compression(tmp_path: Path) -> None:
    whole_run(tmp_path, "real_nvp", **BOUND)
    whole_run(tmp_path, "pixelcnn")
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
    html = page(tmp_path)
    cells = rows_of(html, "Against the published figures")
    assert ["VAE", "3.5625", "3.5000", "0.0625", "importance-weighted (64)"] in cells
    assert ["VAE with IAF", "7.0000", "", "", "elbo"] in cells
    assert rows_of(html, "vae") == [
        ["VAE", "reconstruction", "3.0625"],
        ["VAE", "kl layer 01", "0.5000"],
        ["VAE", "sum: the one-sample bound", "3.5625"],
    ]


def test_a_start_stands_beside_the_end_of_training(tmp_path: Path) -> None:
    whole_run(tmp_path, "nice")
    whole_run(tmp_path, "uniform").curve.unlink()
    cells = [row for row in rows_of(page(tmp_path), "Against the published figures") if len(row) == 5]
    assert cells == [["NICE", "8.000", "5.100", "2.900", "ZCA whitening with a factorised logistic"]]


def test_the_page_says_what_training_cost_and_what_is_known_of_the_published_run(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn_pp")
    cells = {row[0]: row[1:] for row in rows_of(page(tmp_path), "Bits against compute") if len(row) == 8}
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


def test_a_picture_with_any_byte_changed_is_refused_by_name_or_read(tmp_path: Path) -> None:
    path, none = tmp_path / "made.png", np.zeros((0, 3, 32, 32), np.uint8)
    save_picture(path, np.zeros((2, 3, 32, 32), np.uint8), none, none)
    content = path.read_bytes()
    said: list[str] = []
    for where, mask in ((where, mask) for where in range(len(content)) for mask in (1, 128)):
        path.write_bytes(content[:where] + bytes([content[where] ^ mask]) + content[where + 1 :])
        try:
            read_samples(path, "MADE")
        except StageError as error:
            said.append(str(error))
    assert len(said) > len(content)
    assert all(re.search(r"^\S+made\.png: [^\n]+; draw the samples again", line) for line in said)
