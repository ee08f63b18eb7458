"""The tables that only the page shows: bounds, starts, differences, compression, provenance and sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dgm.reporting.published import CATALOGUE, PIXELCNN_PP_TABLE, PIXELRNN_TABLE, STARTS, PublishedRow
from dgm.reporting.results import PARAMETERS, TRAIN, Entry, all_rows, bits_cell, published_cell, shown_name
from dgm.reporting.rows import BoundTerm, PairedDifference, Row
from dgm.reporting.tables import Column, Table, make_table, number, three_digits
from dgm.reporting.tiers import current_conformance, decoded_images, tier
from dgm.runs.proof_records import Conformance, TestSetProof
from dgm.runs.records import Compression, Metrics

MINUS = "\N{MINUS SIGN}"
PLAIN, EXTRA = "", "extra"  # a column of the main tables that a narrow screen leaves to the model's card


@dataclass(frozen=True)
class LinkedTable:
    """A table whose first cells lead to the models' cards. `kinds`: EXTRA for a column that may be left out."""

    table: Table
    models: tuple[str, ...]
    kinds: tuple[str, ...]


def lecture_table(entries: Sequence[Entry]) -> LinkedTable:
    """One of the lecture's tables, ours first."""
    columns = (*FIRST_COLUMNS, TRAIN, *LAST_COLUMNS)
    kinds = (*[PLAIN] * len(FIRST_COLUMNS), *[EXTRA] * (1 + len(LAST_COLUMNS)))
    return LinkedTable(make_table(columns, entries), tuple(entry.row.model for entry in entries), kinds)


def everything_table(rows: Sequence[Row]) -> LinkedTable:
    """Every row, from the best to the worst figure, with what it cost."""
    ranked = sorted(all_rows(rows), key=lambda row: (row.test_bits is None, row.test_bits or 0.0))
    family = Column[Entry]("Family", lambda entry: entry.row.published.family)
    columns = (*FIRST_COLUMNS, TRAIN, *LAST_COLUMNS, family, PARAMETERS)
    kinds = (*[PLAIN] * len(FIRST_COLUMNS), *[EXTRA] * (len(columns) - len(FIRST_COLUMNS)))
    entries = [Entry(row.published, row) for row in ranked]
    return LinkedTable(make_table(columns, entries), tuple(row.model for row in ranked), kinds)


def _difference(entry: Entry) -> float | None:
    ours, published = entry.row.test_bits, entry.published.published_test
    return None if ours is None or published is None else round(ours - published, 3) + 0.0  # no -0.000


def _pflop(entry: Entry) -> float | None:
    return None if entry.row.training_flops is None else entry.row.training_flops / 1e15


FIRST_COLUMNS: tuple[Column[Entry], ...] = (
    Column("Model", lambda entry: shown_name(entry.row, entry.published.name)),
    Column("Ours", lambda entry: bits_cell(entry.row, entry.row.test_bits), is_number=True),
    Column("Published", lambda entry: published_cell(entry.published), is_number=True),
    Column(
        "Difference",
        lambda entry: "" if (bits := _difference(entry)) is None else f"{bits:+.3f}".replace("-", MINUS),
        is_number=True,
    ),
)
LAST_COLUMNS: tuple[Column[Entry], ...] = (
    Column(
        "Error",
        lambda entry: number(entry.row.metrics.test_standard_error if entry.row.metrics else None, 3),
        is_number=True,
    ),
    Column("How reached", lambda entry: entry.row.metrics.likelihood if entry.row.metrics else ""),
    Column("Proof", lambda entry: tier(entry.row)),
    Column("PFLOP", lambda entry: three_digits(_pflop(entry)), is_number=True),
    Column(
        "Seconds",
        lambda entry: number(entry.row.provenance.train_seconds if entry.row.provenance else None, 0),
        is_number=True,
    ),
)


def differences_table(differences: Sequence[PairedDifference]) -> Table:
    """Neighbours in the ranking, better first."""
    columns: tuple[Column[PairedDifference], ...] = (
        Column("Better", lambda pair: _name(pair.model_a)),
        Column("Next", lambda pair: _name(pair.model_b)),
        Column("Difference", lambda pair: number(pair.difference_bits_per_subpixel, 4), is_number=True),
        Column("Standard error", lambda pair: number(pair.standard_error, 4), is_number=True),
    )
    return make_table(columns, differences)


def _name(model: str) -> str:
    return CATALOGUE[model].name if model in CATALOGUE else model


def terms_table(rows: Sequence[Row]) -> Table:
    """Each part of each one-sample bound, and their sum, in the order of the table of everything."""
    columns: tuple[Column[BoundTerm], ...] = (
        Column("Model", lambda term: _name(term.model)),
        Column("Part of the bound", lambda term: term.term.replace("_", " ")),
        Column("Bits", lambda term: number(term.bits_per_subpixel, 4), is_number=True),
    )
    lines: list[BoundTerm] = []
    for row, metrics in _bounds(rows):
        terms = metrics.terms_bits_per_subpixel
        lines += [BoundTerm(row.model, term, bits) for term, bits in terms.items()]
        lines.append(BoundTerm(row.model, "sum: the one-sample bound", sum(terms.values())))
    return make_table(columns, lines)


def bounds_table(rows: Sequence[Row]) -> Table:
    """The one-sample bound beside the importance-weighted one, where there is one."""
    columns: tuple[Column[tuple[Row, Metrics]], ...] = (
        Column("Model", lambda pair: pair[0].published.name),
        Column("One sample (elbo)", lambda pair: number(_one_sample(pair[1]), 4), is_number=True),
        Column("Importance-weighted", lambda pair: number(_weighted(pair[1]), 4), is_number=True),
        Column("Gained", lambda pair: number(_gained(pair[1]), 4), is_number=True),
        Column("In the tables above", lambda pair: pair[1].likelihood),
    )
    return make_table(columns, _bounds(rows))


def _bounds(rows: Sequence[Row]) -> list[tuple[Row, Metrics]]:
    return [(row, row.metrics) for row in all_rows(rows) if row.metrics and row.metrics.terms_bits_per_subpixel]


def _one_sample(metrics: Metrics) -> float:
    weighted = metrics.elbo_test_bits_per_subpixel
    return metrics.test_bits_per_subpixel if weighted is None else weighted


def _weighted(metrics: Metrics) -> float | None:
    return None if metrics.elbo_test_bits_per_subpixel is None else metrics.test_bits_per_subpixel


def _gained(metrics: Metrics) -> float | None:
    weighted = _weighted(metrics)
    return None if weighted is None else _one_sample(metrics) - weighted


def starts_table(rows: Sequence[Row]) -> Table:
    """Where training began and ended, of the models that were validated before the first step."""
    columns: tuple[Column[tuple[Row, float, float]], ...] = (
        Column("Model", lambda line: line[0].published.name),
        Column("Start, validation", lambda line: number(line[1], 3), is_number=True),
        Column("End, validation", lambda line: number(line[2], 3), is_number=True),
        Column("Learned", lambda line: number(line[1] - line[2], 3), is_number=True),
        Column("What it starts as", lambda line: STARTS.get(line[0].model, "")),
    )
    ends = [(row, *row.validation_ends) for row in all_rows(rows)]
    return make_table(columns, [(row, start, end) for row, start, end in ends if start is not None and end is not None])


def compression_table(rows: Sequence[Row]) -> Table:
    """What the entropy coder wrote, of the models that can compress."""
    columns: tuple[Column[tuple[Row, Compression]], ...] = (
        Column("Model", lambda pair: pair[0].published.name),
        Column("Written", lambda pair: number(pair[1].compressed_bits_per_subpixel, 4), is_number=True),
        Column("Claimed", lambda pair: number(pair[1].claimed_bits_per_subpixel, 4), is_number=True),
        Column("Initial bits", lambda pair: number(pair[1].initial_bits or None, 0), is_number=True),
        Column("Overhead", lambda pair: _overhead(pair[1]), is_number=True),
        Column("Images", lambda pair: number(pair[1].num_images, 0), is_number=True),
        Column("Read back", lambda pair: "bit for bit" if pair[1].is_lossless else "DIFFERS"),
    )
    return make_table(
        columns, [(row, row.compression) for row in rows if row.compression and row.compression.num_images]
    )


def proofs_table(rows: Sequence[Row]) -> Table:
    """All test images written and read back, of the models of which it was done."""
    columns: tuple[Column[tuple[Row, TestSetProof]], ...] = (
        Column("Model", lambda pair: shown_name(pair[0])),
        Column("Written", lambda pair: number(pair[1].compressed_bits_per_subpixel, 4), is_number=True),
        Column("Claimed", lambda pair: number(pair[1].claimed_bits_per_subpixel, 4), is_number=True),
        Column("Overhead", lambda pair: _overhead(pair[1]), is_number=True),
        Column("Images", lambda pair: number(pair[1].num_images, 0), is_number=True),
        Column("Encoding, s", lambda pair: number(pair[1].encode_core_seconds, 0), is_number=True),
        Column("Decoding, s", lambda pair: number(pair[1].decode_core_seconds, 0), is_number=True),
        Column("Counts", lambda pair: "yes" if decoded_images(pair[0]) >= pair[1].num_images else "no: stale"),
    )
    return make_table(columns, [(row, row.proof) for row in rows if row.proof])


def conformance_table(rows: Sequence[Row]) -> Table:
    """What was asked of the trained weights at full size."""
    columns: tuple[Column[tuple[Row, Conformance]], ...] = (
        Column("Model", lambda pair: shown_name(pair[0])),
        Column("Sub-pixels changed", lambda pair: _count(pair[1].num_changed_subpixels), is_number=True),
        Column("Endings replaced", lambda pair: _count(pair[1].num_replaced_endings), is_number=True),
        Column("Images in other company", lambda pair: number(pair[1].num_images_in_company, 0), is_number=True),
    )
    found = [(row, current_conformance(row)) for row in rows]
    return make_table(columns, [(row, record) for row, record in found if record])


def _count(value: int) -> str:
    return "" if value == 0 else number(value, 0)  # 0: nothing to change, no order of sub-pixels


def _overhead(compression: Compression | TestSetProof) -> str:
    written, claimed = compression.compressed_bits_per_subpixel, compression.claimed_bits_per_subpixel
    return "" if written is None or claimed is None else f"{100 * (written / claimed - 1):+.2f} %"


def provenance_table(rows: Sequence[Row]) -> Table:
    """Where each result is from."""
    columns: tuple[Column[tuple[Row, Metrics]], ...] = (
        Column("Model", lambda pair: pair[0].published.name),
        Column("Scored on", lambda pair: number(pair[1].num_test_images, 0), is_number=True),
        Column("Finished", lambda pair: _finished(pair[0])),
        Column("Commit", lambda pair: _commit(pair[0])),
        Column("MLflow run", lambda pair: ((pair[0].provenance and pair[0].provenance.mlflow_run_id) or "")[:10]),
    )
    return make_table(columns, [(row, row.metrics) for row in rows if row.metrics])


def _finished(row: Row) -> str:
    return row.provenance.finished_at.replace("T", " ").replace("+00:00", " UTC") if row.provenance else ""


def _commit(row: Row) -> str:
    if row.provenance is None:
        return ""
    return (row.provenance.git_commit or "")[:10] + (" + local changes" if row.provenance.git_is_dirty else "")


def sources_table() -> Table:
    """Where the published figures are from: each model once, and again where the second table prints another figure."""
    columns: tuple[Column[PublishedRow], ...] = (
        Column("Row", lambda row: row.name),
        Column("Published", published_cell, is_number=True),
        Column("Where the figure is from", lambda row: row.published_source),
        Column("Remark", lambda row: row.note),
    )
    entries: list[PublishedRow] = list(PIXELRNN_TABLE)
    entries += [row for row in PIXELCNN_PP_TABLE if row.key not in {entry.key for entry in PIXELRNN_TABLE}]
    entries += [row for row in PIXELCNN_PP_TABLE if row.published_test != CATALOGUE[row.key].published_test]
    return make_table(columns, entries)
