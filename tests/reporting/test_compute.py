"""The table of compute: units, rounding, what is empty, and full precision in CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from dgm.reporting.compute import COLUMNS, CSV_COLUMNS, PUBLISHED_NOTE, UNIT_NOTE, compute_csv, compute_table
from dgm.reporting.published import CATALOGUE
from dgm.reporting.results import STALE_NOTE
from dgm.reporting.rows import result_rows
from dgm.reporting.tables import latex
from dgm.runs.records import write_record
from tests.reporting.made_up import PROVENANCE, whole_run


def trained(root: Path, model: str, **changes: object) -> None:
    files = whole_run(root, model)
    write_record(files.provenance, replace(PROVENANCE, model=model, **changes))  # type: ignore[arg-type]


def test_a_row_has_the_units_of_its_columns(tmp_path: Path) -> None:
    trained(tmp_path, "pixelcnn_pp", training_flops_per_image=150 * 10**9)
    trained(tmp_path, "vae", images_seen=450, training_flops_per_image=2 * 10**9)
    trained(tmp_path, "uniform", forward_flops_per_image=None, training_flops_per_image=None, peak_memory_bytes=None)
    table = compute_table(result_rows("cpu", {"pixelcnn_pp": "key", "vae": "key", "uniform": "key"}, tmp_path))
    cells = {row[0]: row[1:] for row in table.cells}
    published = CATALOGUE["pixelcnn_pp"].published_compute
    assert table.titles == tuple(column.title for column in COLUMNS)
    assert (table.unit, table.notes) == (UNIT_NOTE, (PUBLISHED_NOTE,))
    assert cells["PixelCNN++"] == ("cpu", "102", "64,000", "631", "9.6", "1.00", published)
    assert cells["VAE"] == ("cpu", "102", "450", "4.43", "0.0009", "1.00", "")
    assert cells["Uniform Distribution"] == ("cpu", "102", "64,000", "", "", "", "")


def test_a_published_run_is_shown_without_a_result_of_ours_and_nothing_else_is(tmp_path: Path) -> None:
    table = compute_table(result_rows("cpu", {}, tmp_path))
    assert {row[0] for row in table.cells} == {row.name for row in CATALOGUE.values() if row.published_compute}
    assert all(row[1:-1] == ("",) * 6 and row[-1] for row in table.cells)


def test_a_stale_row_is_marked(tmp_path: Path) -> None:
    trained(tmp_path, "vae")
    table = compute_table(result_rows("cpu", {"vae": "newer"}, tmp_path))
    assert "VAE †" in [row[0] for row in table.cells]
    assert table.notes[-1] == STALE_NOTE


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    trained(tmp_path, "vae")
    records = {row["model"]: row for row in csv.DictReader(io.StringIO(compute_csv(result_rows("cpu", {}, tmp_path))))}
    assert tuple(records["vae"]) == CSV_COLUMNS
    assert float(records["vae"]["images_per_second"]) == 64000 / 101.5
    assert (records["vae"]["training_flops"], records["vae"]["peak_memory_bytes"]) == ("768000000000", str(2**30))
    assert (records["nice"]["training_flops"], records["nice"]["device"]) == ("", "")
    assert records["nice"]["published_compute"] == CATALOGUE["nice"].published_compute


def test_latex_is_ascii_and_numbers_stand_on_the_right(tmp_path: Path) -> None:
    trained(tmp_path, "vae")
    text = latex(compute_table(result_rows("cpu", {}, tmp_path)))
    assert text.isascii()
    assert r"\begin{tabular}{llrrrrrl}" in text
