"""PPCA's ladder in the report: read back bit-identical, shown with its errors, refused by name."""

from __future__ import annotations

from pathlib import Path

from dgm.reporting.files import make_report
from dgm.reporting.plots import ppca_ladder_png
from dgm.reporting.ppca_ladder import rungs_table
from dgm.runs.files import ladder_file
from dgm.runs.records import Rung, read_rungs, write_rungs

RUNGS = [
    Rung(1, 6145, 6.1234567890123456, 0.01, 10000, None),
    Rung(16, 52105, 5.123456, 0.01, 10000, 5.1234565 + 0.1 / 3000),
    Rung(512, 1445121, 4.9, 0.01, 10000, 4.89991),
    Rung(3071, 4723199, 4.648, 0.1 / 3, 10000, None),
]


def test_rungs_read_back_bit_identical(tmp_path: Path) -> None:
    path = ladder_file("cpu", tmp_path)
    assert read_rungs(path) == []
    write_rungs(path, RUNGS)
    assert read_rungs(path) == RUNGS


def test_the_table_shows_em_beside_the_closed_form_and_says_how_many_images_if_not_all() -> None:
    table = rungs_table(RUNGS)
    assert table.titles == ("Components", "Parameters", "Closed form, test", "EM, test")
    assert table.cells == (
        ("1", "6,145", "≤ 6.12346 ± 0.01000", ""),
        ("16", "52,105", "≤ 5.12346 ± 0.01000", "≤ 5.12349"),
        ("512", "1,445,121", "≤ 4.90000 ± 0.01000", "≤ 4.89991"),
        ("3,071", "4,723,199", "≤ 4.64800 ± 0.03333", ""),
    )
    assert table.notes == ("EM and the closed form differ by at most 0.000090 bits.",)
    without_em = rungs_table([Rung(1, 6145, 6.0, 0.1, 64, None)])
    assert without_em.notes == ("Scored on only 64 of the 10,000 test images.",)


def test_the_page_shows_the_ladder_if_there_is_one(tmp_path: Path) -> None:
    before = make_report("cpu", {}, tmp_path).files
    assert b"ppca_ladder" not in before["index.html"]
    write_rungs(ladder_file("cpu", tmp_path), RUNGS)
    after = make_report("cpu", {}, tmp_path).files
    assert "≤ 4.64800 ± 0.03333" in (page := after["index.html"].decode("utf-8"))
    assert 'class="number">≤ 5.12349</td>' in page and "at most 0.000090 bits" in page
    assert after["ppca_ladder.png"] == ppca_ladder_png(RUNGS) != before["ppca_ladder.png"]
