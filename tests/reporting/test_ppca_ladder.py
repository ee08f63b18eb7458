"""PPCA's ladder in the report: read back bit-identical, shown with its errors, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgm.reporting.files import report_files
from dgm.reporting.plots import ppca_ladder_png
from dgm.reporting.ppca_ladder import COLUMNS, Rung, ladder_file, read_rungs, rungs_table, write_rungs
from dgm.runs import StageError, write_text

RUNGS = [Rung(1, 6145, 6.1234567890123456, 0.01, 10000), Rung(3071, 4723199, 4.648, 0.1 / 3, 10000)]


def test_rungs_read_back_bit_identical(tmp_path: Path) -> None:
    path = ladder_file("cpu", tmp_path)
    assert read_rungs(path) == []
    write_rungs(path, RUNGS)
    assert read_rungs(path) == RUNGS


def test_the_table_says_how_many_images_if_not_all() -> None:
    table = rungs_table(RUNGS)
    assert table.cells == [["1", "6,145", "≤ 6.123 ± 0.010"], ["3,071", "4,723,199", "≤ 4.648 ± 0.033"]]
    assert table.lines == []
    assert rungs_table([Rung(1, 6145, 6.0, 0.1, 64)]).lines == ["Scored on only 64 of the 10,000 test images."]


def test_the_page_shows_the_ladder_if_there_is_one(tmp_path: Path) -> None:
    before = report_files("cpu", {}, tmp_path)
    assert b"ppca_ladder" not in before["index.html"]
    write_rungs(ladder_file("cpu", tmp_path), RUNGS)
    after = report_files("cpu", {}, tmp_path)
    assert "≤ 4.648 ± 0.033" in after["index.html"].decode("utf-8")
    assert after["ppca_ladder.png"] == ppca_ladder_png(RUNGS) != before["ppca_ladder.png"]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\n1,2,x,4,5\n", ",".join(COLUMNS) + "\n,2,3,4,5\n"]
)
def test_a_broken_ladder_is_named(tmp_path: Path, text: str) -> None:
    path = ladder_file("cpu", tmp_path)
    write_text(path, text)
    with pytest.raises(StageError, match=r"ppca_ladder\.csv: not a ladder"):
        read_rungs(path)
