"""The scaling figure: what was measured is drawn and tabulated, and nothing else."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dgm.model_api.contracts import Fitted
from dgm.registry import MODELS as MODELS_OF_ALL
from dgm.registry import model_class
from dgm.reporting.files import Report, make_report
from dgm.reporting.scaling import NOTHING, Scaling, last, read_scaling, scaling_csv, scaling_table, shown_name
from dgm.reporting.scaling_plot import scaling_figure, scaling_png
from dgm.runs.files import BUDGETS
from tests.reporting.made_up import measured

MODELS = ("pixelcnn", "made", "nice")
KEYS = {(model, budget): "key" for model in MODELS for budget in BUDGETS}
BOUND: dict[str, Any] = {"likelihood": "dequantized"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three models: one whole, one with a bound, one without its largest budget."""
    measured(tmp_path, "pixelcnn", 4.2, 3.9, 3.7)
    measured(tmp_path, "nice", 4.6, 4.5, 4.45, **BOUND)
    measured(tmp_path, "made", 4.3, 4.1)
    return tmp_path


def scaling(root: Path) -> Scaling:
    faults: list[str] = []
    found = read_scaling("cpu", KEYS, root, faults)
    assert faults == []
    return found


def report(root: Path) -> Report:
    return make_report("cpu", {}, root, scaling_keys=KEYS)


def test_models_are_ranked_by_the_figure_of_their_largest_budget(root: Path) -> None:
    assert list(scaling(root).models) == ["pixelcnn", "made", "nice"]
    assert last(scaling(root).models["made"]).budget == "one"


def test_the_table_has_a_row_a_model_and_is_empty_where_nothing_was_measured(root: Path) -> None:
    table = scaling_table(scaling(root))
    cells = {row[0]: row[1:] for row in table.cells}
    assert cells[shown_name("pixelcnn")] == ("4.200", "3.900", "3.700", "0.500", "0.013", "0.002", "302")
    assert cells[shown_name("made")] == ("4.300", "4.100", "", "", "0.013", "0.002", "201")
    assert cells[shown_name("nice")][:3] == ("≤ 4.600", "≤ 4.500", "≤ 4.450")
    assert table.notes == ("Scored on the first 2,000 validation images.",)


def test_the_csv_has_a_line_a_measurement_at_full_precision(root: Path) -> None:
    measured(root, "made", 3.987654321098765)
    lines = list(csv.DictReader(io.StringIO(scaling_csv(scaling(root)))))
    assert [(line["model"], line["budget"], float(line["factor"])) for line in lines[:3]] == [
        ("pixelcnn", budget, factor) for budget, factor in BUDGETS.items()
    ]
    assert len(lines) == 8
    (line,) = [line for line in lines if line["model"] == "made" and line["budget"] == "quarter"]
    assert float(line["validation_bits_per_subpixel"]) == 3.987654321098765
    assert line["training_flops"] == "500000000000" and line["num_images"] == "2000" and line["key"] == "key"


def test_a_stale_record_is_named_and_not_shown(root: Path) -> None:
    measured(root, "pixelcnn", 4.2, 3.9, 3.1, key="older")
    found = scaling(root)
    assert "pixelcnn" not in found.models and len(found.models) == 2
    assert found.stale == tuple(f"PixelCNN ({budget})" for budget in ("a quarter", "four times", "one"))
    text = report(root).files["scaling.md"].decode()
    assert "PixelCNN (four times)" in text and "3.100" not in text and "make scaling" in text


def test_a_model_that_params_no_longer_have_is_stale(root: Path) -> None:
    measured(root, "vae", 4.0)
    assert scaling(root).stale == (f"{shown_name('vae')} (a quarter)",)


def test_a_damaged_record_costs_itself_only_and_is_a_fault(root: Path) -> None:
    files = measured(root, "pixelcnn", 4.2, 3.9, 3.7)[2]
    files.scaling.write_text("{")
    made = report(root)
    (fault,) = made.faults
    assert re.search(r"scaling/four/pixelcnn\.json: Invalid JSON", fault) and made.damaged_models == frozenset()
    row = next(line for line in made.files["scaling.md"].decode().splitlines() if line.startswith("| PixelCNN "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["4.200", "3.900", ""]


def section(root: Path) -> str:
    html = report(root).files["index.html"].decode()
    found = re.search(r'<h3 id="scaling">.*?(?=<h2)', html, flags=re.DOTALL)
    return found[0] if found else ""


def test_the_page_has_picture_and_table(root: Path) -> None:
    text = section(root)
    picture = re.search(r'<img class="" src="data:image/svg\+xml;base64,([^"]+)" width="(\d+)" alt="([^"]+)"', text)
    assert picture and len(picture[3]) >= 20 and int(picture[2]) < 540  # a phone shrinks it to 366 pixels
    svg = base64.b64decode(picture[1]).decode()
    assert "prefers-color-scheme:dark" in svg
    for name, bits in (("PixelCNN", "3.70"), ("MADE", "4.10"), ("NICE", "4.45")):
        assert f"{name} {bits}" in svg
    assert text.count('<th scope="row"') == 3 and text.count('<th scope="col"') == 8
    assert "≤ 4.450" in text and 'href="scaling.csv"' in text


def test_without_a_record_there_is_no_section_and_the_files_say_so(tmp_path: Path) -> None:
    assert section(tmp_path) == ""
    files = make_report("cpu", {}, tmp_path).files
    assert len(files["scaling.csv"].splitlines()) == 1 and files["scaling.png"] == scaling_png(NOTHING)


def test_only_stale_records_are_said_without_an_empty_picture(tmp_path: Path) -> None:
    measured(tmp_path, "made", 4.0, key="older")
    text = section(tmp_path)
    assert "MADE (a quarter)" in text and "<img" not in text


def test_names_at_the_ends_stand_apart_and_within_the_picture(tmp_path: Path) -> None:
    """Also where many models end at the same figure."""
    models = [name for name in MODELS_OF_ALL if not issubclass(model_class(name), Fitted)]
    for number, model in enumerate(models):
        measured(tmp_path, model, 4.2, 3.9, 3.7 + 0.001 * number)
    keys = {(model, budget): "key" for model in models for budget in BUDGETS}
    figure = scaling_figure(read_scaling("cpu", keys, tmp_path, []))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(models) >= 18
    heights = np.sort([box.y0 for box in boxes])
    assert np.diff(heights).min() >= 0.9 * max(box.height for box in boxes)
    edge = figure.bbox
    assert all(box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1 for box in boxes)


def test_equal_records_give_equal_bytes(root: Path) -> None:
    first, second = report(root).files, report(root).files
    names = [name for name in first if name.startswith("scaling")]
    assert len(names) == 4 and all(first[name] == second[name] for name in names)
