"""One HTML page of a profile: tables, plots, samples, and what the numbers mean. Needs only its own folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dgm.reporting.codecs import codec_table
from dgm.reporting.compute import compute_table
from dgm.reporting.ppca_ladder import SHOWN_COLUMNS, Rung, rungs_table
from dgm.reporting.published import CATALOGUE, PIXELCNN_PP_TABLE, PIXELRNN_TABLE, PublishedRow
from dgm.reporting.rows import BoundTerm, PairedDifference, ResultRow
from dgm.reporting.tables import NUMERIC_COLUMNS, Table, all_rows, published_cell, readable_tables
from dgm.runs.records import ReferenceCodec

TEMPLATE = "page.html"
PROVENANCE_COLUMNS = ("Model", "Scored on", "Finished", "Commit", "MLflow run")
COMPRESSION_COLUMNS = ("Model", "Written", "Claimed", "Overhead", "Images", "Read back")
TERM_COLUMNS = ("Model", "Part of the bound", "Bits")
BOUND_COLUMNS = ("Model", "One sample (elbo)", "Importance-weighted", "Gained", "In the tables above")
START_COLUMNS = ("Model", "Start, validation", "End, validation", "Learned", "What it starts as")
DIFFERENCE_COLUMNS = ("Better", "Next", "Difference", "Standard error")
STARTS = {  # models whose parameters before the first step are those of a simpler model
    "nice": "ZCA whitening with a factorised logistic",
    "made": "linear regression on the sub-pixels nearby",
    "vae": "probabilistic PCA of patches",
    "vae_iaf": "with has_linear_start: probabilistic PCA of patches",
    "draw": "with has_linear_start: probabilistic PCA of patches",
    "conv_draw": "with has_linear_start: probabilistic PCA of patches",
    "deep_diffusion": "with has_linear_start: the multivariate Gaussian, taken backwards in time",
}
SOURCE_COLUMNS = ("Row", "Published", "Where the figure is from", "Remark")


NUMERIC = NUMERIC_COLUMNS | {
    *SHOWN_COLUMNS,
    *("Bits", "One sample (elbo)", "Importance-weighted", "Gained", "Start, validation", "End, validation", "Learned"),
    *(
        "Scored on",
        "Written",
        "Claimed",
        "Overhead",
        "Images",
        "Difference",
        "Standard error",
    ),
}


@dataclass(frozen=True)
class Sample:
    """A grid of samples beside the page: its path relative to the page, and a caption."""

    path: str
    caption: str


def page_html(
    rows: Sequence[ResultRow],
    differences: Sequence[PairedDifference],
    terms: Sequence[BoundTerm],
    rungs: Sequence[Rung],
    profile: str,
    sampled: Sequence[str],
    codecs: Sequence[ReferenceCodec] = (),
) -> str:
    """The page; `sampled` names the models that have a samples/<model>.png beside it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        profile=profile,
        num_results=sum(row.test_bits_per_subpixel is not None for row in rows),
        num_rows=len(rows),
        numeric=NUMERIC,
        tables=readable_tables(rows, profile),
        differences=Table(DIFFERENCE_COLUMNS, _difference_cells(differences)),
        terms=Table(TERM_COLUMNS, _term_cells(rows, terms)),
        bounds=Table(BOUND_COLUMNS, _bound_cells(rows, terms)),
        starts=Table(START_COLUMNS, _start_cells(rows)),
        rungs=rungs_table(rungs),
        codecs=codec_table(codecs),
        compression=Table(COMPRESSION_COLUMNS, _compression_cells(rows)),
        compute=compute_table(rows),
        provenance=Table(PROVENANCE_COLUMNS, _provenance_cells(rows)),
        sources=Table(SOURCE_COLUMNS, _source_cells()),
        samples=[_sample(row) for row in all_rows(rows)[::-1] if row.model in sampled],
    )


def _sample(row: ResultRow) -> Sample:
    bits = "" if row.test_bits_per_subpixel is None else f", {row.test_bits_per_subpixel:.3f} bits"
    return Sample(f"samples/{row.model}.png", f"{row.name}{bits}")


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:,.{places}f}"


def _difference_cells(differences: Sequence[PairedDifference]) -> list[list[str]]:
    names = {key: row.name for key, row in CATALOGUE.items()}
    return [
        [
            names.get(pair.model_a, pair.model_a),
            names.get(pair.model_b, pair.model_b),
            _number(pair.difference_bits_per_subpixel, 4),
            _number(pair.standard_error, 4),
        ]
        for pair in differences
    ]


def _term_cells(rows: Sequence[ResultRow], terms: Sequence[BoundTerm]) -> list[list[str]]:
    cells: list[list[str]] = []
    for row in all_rows(rows):
        own = [term for term in terms if term.model == row.model]
        cells += [[row.name, term.term.replace("_", " "), _number(term.bits_per_subpixel, 4)] for term in own]
        if own:
            cells.append(
                [row.name, "sum: the one-sample bound", _number(sum(term.bits_per_subpixel for term in own), 4)]
            )
    return cells


def _bound_cells(rows: Sequence[ResultRow], terms: Sequence[BoundTerm]) -> list[list[str]]:
    cells: list[list[str]] = []
    for row in all_rows(rows):
        if row.model in {term.model for term in terms}:
            one, many = row.elbo_test_bits_per_subpixel, row.test_bits_per_subpixel
            if one is None or many is None:  # no importance weights: the tables show the one-sample bound
                cells.append([row.name, _number(many, 4), "", "", row.likelihood or ""])
            else:
                cells.append([row.name, *(_number(bits, 4) for bits in (one, many, one - many)), row.likelihood or ""])
    return cells


def _start_cells(rows: Sequence[ResultRow]) -> list[list[str]]:
    cells: list[list[str]] = []
    for row in all_rows(rows):
        start, final = row.start_validation_bits_per_subpixel, row.final_validation_bits_per_subpixel
        if start is not None and final is not None:
            values = [_number(bits, 3) for bits in (start, final, start - final)]
            cells.append([row.name, *values, STARTS.get(row.model, "")])
    return cells


def _compression_cells(rows: Sequence[ResultRow]) -> list[list[str]]:
    return [
        [
            row.name,
            _number(row.compressed_bits_per_subpixel, 4),
            _number(row.claimed_bits_per_subpixel, 4),
            _overhead(row.compressed_bits_per_subpixel, row.claimed_bits_per_subpixel),
            _number(row.num_compressed_images, 0),
            {True: "bit for bit", False: "DIFFERS", None: ""}[row.is_lossless],
        ]
        for row in rows
        if row.compressed_bits_per_subpixel is not None
    ]


def _overhead(written: float | None, claimed: float | None) -> str:
    return "" if not written or not claimed else f"{100 * (written / claimed - 1):+.2f} %"


def _provenance_cells(rows: Sequence[ResultRow]) -> list[list[str]]:
    return [
        [
            row.name,
            _number(row.num_test_images, 0),
            (row.finished_at or "").replace("T", " ").replace("+00:00", " UTC"),
            (row.git_commit or "")[:10] + (" + local changes" if row.git_is_dirty else ""),
            (row.mlflow_run_id or "")[:10],
        ]
        for row in rows
        if row.test_bits_per_subpixel is not None
    ]


def _source_cells() -> list[list[str]]:
    entries: list[PublishedRow] = list(PIXELRNN_TABLE)
    entries += [row for row in PIXELCNN_PP_TABLE if row.key not in {entry.key for entry in PIXELRNN_TABLE}]
    entries += [row for row in PIXELCNN_PP_TABLE if row.published_test != CATALOGUE[row.key].published_test]
    return [
        [row.name, published_cell(row.published_test, row.published_train), row.published_source, row.note]
        for row in entries
    ]
