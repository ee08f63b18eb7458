"""The page in a real browser: it says nothing on the console, loads nothing, sorts, and fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pypdf import PdfReader

from dgm.reporting.files import make_report
from dgm.runs.picture import save_picture
from tests.reporting.made_up import BOUND, whole_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr")
HARNESS = """<!DOCTYPE html><iframe src="index.html" style="width:{width}px;height:2000px;border:0"></iframe>
<pre id="found"></pre><script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const table = page.querySelectorAll("table.figures")[2];
  const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  const first = () => table.tBodies[0].rows[0].cells[0].textContent;
  const shown = (cell) => cell.getClientRects().length > 0;
  const inView = [...page.querySelectorAll("table.figures tbody tr")].every((row) =>
    [...row.cells].filter(shown).every((cell) => cell.getBoundingClientRect().right <= {width} + 1));
  const orders = {{ printed: first() }};
  const button = table.tHead.rows[0].cells[column("Ours")].querySelector("button");
  for (const turn of ["ascending", "descending", "again"]) {{
    button.click();
    orders[turn] = [first(), table.tHead.rows[0].cells[column("Ours")].getAttribute("aria-sort")];
  }}
  const width = page.documentElement.scrollWidth;
  const wider = [320, 390, 500, 640, 641, 768, 1024, 1240, 1241, 1280].filter((pixels) => {{
    frame.style.width = `${{pixels}}px`;
    return page.documentElement.scrollWidth > pixels;
  }});
  frame.style.width = "{width}px";
  document.getElementById("found").textContent = JSON.stringify({{
    orders, inView, width, wider,
    shown: [...table.tHead.rows[0].cells].filter(shown).map((cell) => cell.textContent),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    broken: [...page.images].filter((image) => !image.complete || image.naturalWidth === 0).length,
  }});
}};
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three models, with pictures."""
    root = tmp_path_factory.mktemp("project")
    for model, bits in (("pixelcnn", 4.2), ("made", 10.5), ("nice", 4.4)):
        files = whole_run(root, model, test_bits_per_subpixel=bits, **(BOUND if model == "nice" else {}))
        drawn = np.full((16, 3, 32, 32), 9, dtype=np.uint8)
        save_picture(files.samples, drawn, drawn[:8], drawn[:8])
    images = np.random.default_rng(0).integers(0, 256, (10000, 3, 32, 32), dtype=np.uint8)
    for name, content in make_report("cpu", {}, root, test_images=images).files.items():
        (root / name).write_bytes(content)
    return root


def seen_at(folder: Path, width: int) -> dict[str, Any]:
    """What a page around the report finds in it, in a frame of that many pixels."""
    harness = folder / f"harness{width}.html"
    harness.write_text(HARNESS.format(width=width), encoding="utf-8")
    assert BROWSER is not None
    result = subprocess.run(
        [
            BROWSER,
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            harness,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in result.stderr, [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="found">(.*?)</pre>', result.stdout, flags=re.DOTALL)
    assert found and found[1], result.stdout[-2000:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def test_a_click_on_a_title_sorts_by_number_and_a_third_one_undoes_it(folder: Path) -> None:
    found = seen_at(folder, 1280)
    orders = found["orders"]
    assert orders["ascending"] == [orders["printed"], "ascending"] and orders["printed"].startswith("PixelCNN")
    assert orders["descending"][0].startswith("MADE") and orders["descending"][1] == "descending"  # 10.5, not "4.4"
    assert orders["again"] == [orders["printed"], None]
    assert {"Ours", "Published", "Difference", "Error", "Proof", "PFLOP"} <= set(found["shown"])
    assert found["requests"] == [] and found["broken"] == 0


def test_on_a_phone_the_figures_are_in_view_and_nothing_scrolls_sideways(folder: Path) -> None:
    found = seen_at(folder, 390)
    assert found["width"] <= 390 and found["inView"]
    assert found["wider"] == []  # of phones, tablets and windows
    assert found["shown"] == ["Model", "Ours", "Published", "Difference"]


def test_printed_on_paper_every_column_is_there(folder: Path) -> None:
    assert BROWSER is not None
    target = folder / "page.pdf"
    command = [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={target}"]
    subprocess.run([*command, folder / "index.html"], capture_output=True, timeout=120, check=True)
    text = unicodedata.normalize("NFKC", " ".join(page.extract_text() for page in PdfReader(target).pages))
    text = " ".join(text.split())  # without ligatures and line ends
    for title in (
        "Ours, train",
        "How reached",
        "Proof",
        "PFLOP",
        "Parameters",
        "Published run",
        "Where the figure is from",
    ):
        assert title in text, title
