"""General codecs in the report: sorted, on the page, in its tables."""

from __future__ import annotations

from pathlib import Path

from dgm.reporting.files import make_report
from dgm.runs.atomic import write_text
from dgm.runs.files import reference_codecs_file
from dgm.runs.records import ReferenceCodec, read_reference_codecs, write_reference_codecs

GOOD = ReferenceCodec("Good", "a, b", "package 1", "library 2", 4.1234567890123456, 4.0, 10000)
BAD = ReferenceCodec("Bad", "", "package 1", "library 3", 4.0, 7.5, 10000)


def test_the_report_shows_codecs_from_worst_to_best(tmp_path: Path) -> None:
    assert b"What general codecs write" not in make_report("cpu", {}, tmp_path).files["index.html"]
    write_reference_codecs(reference_codecs_file("cpu", tmp_path), [GOOD, BAD])
    report = make_report("cpu", {}, tmp_path)
    files = {name: content.decode() for name, content in report.files.items() if "png" not in name}
    assert "What general codecs write" in files["index.html"]
    assert ">library 2 in package 1</td>" in files["index.html"]
    assert 'class="number">4.123</td>' in files["index.html"]
    rows = [line.split("|")[1].strip() for line in files["reference_codecs.md"].splitlines() if line.startswith("|")]
    assert [rows[0], *rows[2:]] == ["Codec", "Bad", "Good"]
    assert "The first 10,000 test images." in files["reference_codecs.tex"]
    write_text(tmp_path / "again.csv", files["reference_codecs.csv"])
    assert read_reference_codecs(tmp_path / "again.csv") == [BAD, GOOD]
