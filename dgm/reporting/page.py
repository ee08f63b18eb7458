"""One HTML page of a profile: tables, plots, samples, and what the numbers mean. Needs only its own folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dgm.reporting.cards import model_notes
from dgm.reporting.noise import noise_table
from dgm.reporting.page_tables import (
    bounds_table,
    compression_table,
    conformance_table,
    differences_table,
    proofs_table,
    provenance_table,
    sources_table,
    starts_table,
    terms_table,
)
from dgm.reporting.published import REMARKS
from dgm.reporting.results import all_rows
from dgm.reporting.rows import PairedDifference, Row
from dgm.reporting.settings_notes import NO_SETTINGS, ProfileSettings, basis_notes
from dgm.reporting.tables import Table

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Sample:
    """A grid of samples beside the page: its path relative to the page, and a caption."""

    path: str
    caption: str


def page_html(
    rows: Sequence[Row],
    differences: Sequence[PairedDifference],
    tables: Mapping[str, Table],
    rungs: Table,
    certificates: Table,
    profile: str,
    sampled: Collection[str],
    faults: Sequence[str],
    settings: ProfileSettings = NO_SETTINGS,
) -> str:
    """The page. `tables`: by file name, those that are files too; `sampled`: the models with a samples/<model>.png.

    `faults` says, one line per file, which run files are damaged.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        profile=profile,
        num_results=sum(row.metrics is not None for row in rows),
        num_rows=len(rows),
        faults=faults,
        alarms=[row.alarm for row in rows if row.alarm],
        tables=tables,
        remarks=[*REMARKS, *model_notes(rows, settings)],
        basis=basis_notes(rows, settings),
        noise=noise_table(rows),
        differences=differences_table(differences),
        terms=terms_table(rows),
        bounds=bounds_table(rows),
        starts=starts_table(rows),
        rungs=rungs,
        certificates=certificates,
        compression=compression_table(rows),
        proofs=proofs_table(rows),
        conformance=conformance_table(rows),
        provenance=provenance_table(rows),
        sources=sources_table(),
        samples=[_sample(row) for row in all_rows(rows)[::-1] if row.model in sampled],
    )


def _sample(row: Row) -> Sample:
    bits = "" if row.test_bits is None else f", {row.test_bits:.3f} bits"
    return Sample(f"samples/{row.model}.png", f"{row.published.name}{bits}")
