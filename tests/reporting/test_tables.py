"""Tables: signs, rounding, escaping, emptiness, and full precision in CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dgm.reporting.published import CATALOGUE
from dgm.reporting.results import (
    RESULT_COLUMNS,
    STALE_NOTE,
    bound_terms_csv,
    differences_csv,
    lecture_csv,
    lecture_entries,
    result_tables,
    results_csv,
)
from dgm.reporting.rows import BoundTerm, PairedDifference, result_rows
from dgm.reporting.tables import Column, latex, make_table, markdown
from tests.reporting.made_up import BOUND, METRICS, metrics


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_readable_rows_of_an_exact_model_and_a_bound(tmp_path: Path) -> None:
    metrics(tmp_path, "pixelcnn")
    metrics(tmp_path, "nice", **BOUND, test_bits_per_subpixel=4.4836)
    rows = result_rows("cpu", {"pixelcnn": "key", "nice": "key"}, tmp_path)
    table = result_tables(rows, "cpu")["cifar10_pixelrnn"]
    cells = {row[0]: row[1:] for row in table.cells}
    assert table.notes == ()  # current and scored on all images: nothing to add to the unit
    assert cells["PixelCNN"] == ("3.14 (3.08)", "3.457 ± 0.008", "3.400 ± 0.008", "exact", "untested")
    assert cells["NICE"] == ("4.48", "≤ 4.484 ± 0.008", "≤ 3.400 ± 0.008", "dequantized", "untested")
    assert cells["Row LSTM"] == ("3.07 (3.00)", "", "", "", "published only")


def test_the_second_table_repeats_its_own_figures(tmp_path: Path) -> None:
    tables = result_tables(result_rows("cpu", {}, tmp_path), "cpu")
    assert [row[:2] for row in tables["cifar10_pixelcnn_pp"].cells] == [
        ("Deep Diffusion", "5.40"),
        ("NICE", "4.48"),
        ("DRAW", "4.13"),
        ("Deep GMM", "4.00"),
        ("Conv DRAW", "3.58"),
        ("Real NVP", "3.49"),
        ("PixelCNN", "3.14"),
        ("VAE with IAF", "3.11"),
        ("Gated PixelCNN", "3.03"),
        ("PixelRNN", "3.00"),
        ("PixelCNN++", "2.92"),
    ]
    assert ("Deep Diffusion", "4.20") in [row[:2] for row in tables["cifar10_pixelrnn"].cells]


def test_everything_runs_from_worst_to_best_and_ends_with_the_empty_rows(tmp_path: Path) -> None:
    metrics(tmp_path, "made", test_bits_per_subpixel=5.0)
    metrics(tmp_path, "zoo", test_bits_per_subpixel=6.0)
    metrics(tmp_path, "uniform", test_bits_per_subpixel=8.0)
    cells = result_tables(result_rows("cpu", {}, tmp_path), "cpu")["cifar10_all"].cells
    assert [row[0] for row in cells][:4] == ["Uniform Distribution †", "zoo †", "MADE †", "Multivariate Gaussian"]
    assert cells[2][5:] == ("untested", "1,234,567", "")
    assert len(cells) == len(CATALOGUE) + 1


def test_stale_and_partly_scored_rows_are_marked_where_they_show(tmp_path: Path) -> None:
    metrics(tmp_path, "ride", num_test_images=64)
    tables = result_tables(result_rows("cpu", {"ride": "newer"}, tmp_path), "cpu")
    assert any(row[0] == "RIDE †" for row in tables["cifar10_pixelrnn"].cells)
    assert tables["cifar10_pixelrnn"].notes == (
        "Some rows are scored on only 64 of the 10,000 test images.",
        STALE_NOTE,
    )
    assert tables["cifar10_pixelcnn_pp"].notes == ()


def test_fewer_training_images_than_test_images_are_said_under_the_table(tmp_path: Path) -> None:
    metrics(tmp_path, "ride", num_train_images=2000, train_standard_error=0.0132)
    rows = result_rows("cpu", {"ride": "key"}, tmp_path)
    table = result_tables(rows, "cpu")["cifar10_pixelrnn"]
    assert {row[0]: row[3] for row in table.cells}["RIDE"] == "3.400 ± 0.013"
    assert table.notes == (
        "Train: the figure of 2,000 training images, the same for every model, with its standard error.",
    )
    (record,) = (each for each in parsed(results_csv(rows)) if each["model"] == "ride")
    assert (record["num_train_images"], record["train_standard_error"]) == ("2000", "0.0132")


def test_csv_keeps_every_digit_and_leaves_empty_cells_empty(tmp_path: Path) -> None:
    metrics(tmp_path, "pixelcnn")
    rows = result_rows("cpu", {"pixelcnn": "key"}, tmp_path)
    records = {record["model"]: record for record in parsed(results_csv(rows))}
    assert tuple(records["uniform"]) == tuple(RESULT_COLUMNS)
    assert float(records["pixelcnn"]["test_bits_per_subpixel"]) == METRICS.test_bits_per_subpixel
    assert records["pixelcnn"]["parameters"] == "1234567"
    assert records["pixelcnn"]["is_current"] == "True"
    assert records["ride"]["published_test"] == "3.47"
    for column in ("test_bits_per_subpixel", "parameters", "is_current", "likelihood", "published_train"):
        assert records["ride"][column] == ""
    lecture = parsed(lecture_csv(lecture_entries(rows)["cifar10_pixelcnn_pp"]))
    assert [record["model"] for record in lecture][:2] == ["deep_diffusion", "nice"]
    assert (lecture[0]["published_test"], lecture[0]["test_bits_per_subpixel"]) == ("5.4", "")
    assert float(lecture[6]["test_bits_per_subpixel"]) == METRICS.test_bits_per_subpixel


def test_differences_keep_their_header_when_there_are_none() -> None:
    header = "model_a,model_b,difference_bits_per_subpixel,standard_error,num_images\n"
    assert differences_csv([]) == header
    assert differences_csv([PairedDifference("a", "b", 0.1, None, 3)]) == header + "a,b,0.1,,3\n"


def test_terms_keep_their_header_when_there_are_none() -> None:
    assert bound_terms_csv([]) == "model,term,bits_per_subpixel\n"
    assert bound_terms_csv([BoundTerm("vae", "kl", 0.1)]) == "model,term,bits_per_subpixel\nvae,kl,0.1\n"


COLUMNS: tuple[Column[tuple[str, str, str]], ...] = (
    Column("Model", lambda cells: cells[0]),
    Column("Published", lambda cells: cells[1], is_number=True),
    Column("Ours, test", lambda cells: cells[2], is_number=True),
)
TABLE = make_table(COLUMNS, [("50%_a&b|#{$}<i>", "4.70", "≤ 4.651 ± 0.008"), ("c\\^~", "", "")], "u ≤", ["n_n % <b>"])


def test_latex_escapes_and_is_a_booktabs_tabular() -> None:
    text = latex(TABLE)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == r"% needs \usepackage{booktabs}"
    assert r"50\%\_a\&b|\#\{\$\}<i> & 4.70 & $\leq$ 4.651 $\pm$ 0.008 \\" in lines
    assert r"\multicolumn{3}{l}{\footnotesize n\_n \% <b>} \\" in lines
    assert lines[2:4] == [r"\begin{tabular}{lrr}", r"\toprule"]
    assert lines[-1] == r"\end{tabular}"
    assert text.isascii()


def test_markdown_escapes_and_keeps_two_digits() -> None:
    lines = [" ".join(line.split()) for line in markdown(TABLE).splitlines()]
    assert lines[2] == r"| 50%\_a&b\|#{$}&lt;i&gt; | 4.70 | ≤ 4.651 ± 0.008 |"
    assert lines[3] == r"| c\\^\~ | | |"
    assert lines[5:] == ["u ≤", "", r"n\_n % &lt;b&gt;"]


@pytest.mark.parametrize("name", ["cifar10_pixelrnn", "cifar10_pixelcnn_pp", "cifar10_all"])
def test_every_latex_row_has_all_its_cells(tmp_path: Path, name: str) -> None:
    metrics(tmp_path, "a_model", test_bits_per_subpixel=5.0)
    table = result_tables(result_rows("cpu", {}, tmp_path), "cpu")[name]
    body = latex(table).split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(table.cells)
    assert all(line.count(" & ") == len(table.titles) - 1 and line.endswith(r"\\") for line in body)
