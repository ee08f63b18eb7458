"""The tables of results: results.csv, the lecture's two tables row for row, and all models from worst to best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dgm.reporting.published import PIXELCNN_PP_TABLE, PIXELRNN_TABLE, PublishedRow
from dgm.reporting.rows import BoundTerm, PairedDifference, Row
from dgm.reporting.tables import Column, Table, columns_csv, make_table, number
from dgm.reporting.tiers import current_conformance, decoded_images, tier
from dgm.types import NUM_TEST_IMAGES

LECTURE_TABLES = {"cifar10_pixelrnn": PIXELRNN_TABLE, "cifar10_pixelcnn_pp": PIXELCNN_PP_TABLE}

STALE, DAMAGED, ALARM = "†", "‡", "§"
STALE_NOTE = f"{STALE} stale: code or parameters have changed since; dvc repro brings it up to date."
UNIT_NOTE = (
    "Bits per sub-pixel, smaller is better; published training figures in brackets; "
    "± one standard error over test images; ≤ marks a bound."
)


@dataclass(frozen=True)
class Entry:
    """A row as one table prints it: the published figures of that table beside ours."""

    published: PublishedRow
    row: Row


def _from(part: str, *names: str) -> dict[str, Callable[[Row], object]]:
    """Columns of results.csv that are fields of one of a row's records, empty where there is no such record."""

    def column(name: str) -> Callable[[Row], object]:
        return lambda row: None if (record := getattr(row, part)) is None else getattr(record, name)

    return {name: column(name) for name in names}


def _asked(name: str) -> Callable[[Row], object]:
    """A count of the checks at full size, empty where none is current."""

    def column(row: Row) -> object:
        return None if (record := current_conformance(row)) is None else getattr(record, name)

    return column


_MEASURED = _from(
    "metrics", "likelihood", "kind", "test_bits_per_subpixel", "test_standard_error", "train_bits_per_subpixel"
)
RESULT_COLUMNS: Mapping[str, Callable[[Row], object]] = {
    "model": lambda row: row.model,
    **_from("published", "name", "family"),
    **_from("metrics", "likelihood", "kind", "test_bits_per_subpixel", "test_standard_error"),
    **_from("metrics", "test_monte_carlo_error", "elbo_test_bits_per_subpixel", "train_bits_per_subpixel"),
    **_from("metrics", "train_standard_error", "num_test_images", "num_train_images"),
    **_from("published", "published_test", "published_train", "published_source"),
    **_from("metrics", "parameters"),
    "acting_parameters": lambda row: row.acting_parameters,
    "start_validation_bits_per_subpixel": lambda row: row.validation_ends[0],
    "final_validation_bits_per_subpixel": lambda row: row.validation_ends[1],
    **_from("provenance", "train_seconds", "images_seen"),
    "images_per_second": lambda row: row.images_per_second,
    **_from("provenance", "device", "forward_flops_per_image", "training_flops_per_image"),
    "training_flops": lambda row: row.training_flops,
    **_from("provenance", "peak_memory_bytes"),
    **_from("published", "published_compute"),
    **_from("compression", "compressed_bits_per_subpixel", "claimed_bits_per_subpixel"),
    "num_compressed_images": lambda row: (row.compression and row.compression.num_images) or None,
    **_from("compression", "initial_bits", "is_lossless"),
    "tier": tier,
    "num_decoded_images": lambda row: decoded_images(row) or None,
    **{name: _asked(name) for name in ("num_changed_subpixels", "num_replaced_endings", "num_images_in_company")},
    **_from("proof", "encode_core_seconds", "decode_core_seconds"),
    "alarm": lambda row: row.alarm,
    "is_current": lambda row: row.is_current,
    **_from("provenance", "mlflow_run_id", "git_commit", "git_is_dirty", "finished_at"),
}


def results_csv(rows: Sequence[Row]) -> str:
    """results.csv: every row, every column, numbers that read back bit-identical."""
    return columns_csv(RESULT_COLUMNS, rows)


def differences_csv(differences: Sequence[PairedDifference]) -> str:
    """paired_differences.csv; only its header where fewer than two models can be compared."""
    columns: dict[str, Callable[[PairedDifference], object]] = {
        "model_a": lambda pair: pair.model_a,
        "model_b": lambda pair: pair.model_b,
        "difference_bits_per_subpixel": lambda pair: pair.difference_bits_per_subpixel,
        "standard_error": lambda pair: pair.standard_error,
        "num_images": lambda pair: pair.num_images,
    }
    return columns_csv(columns, differences)


def bound_terms_csv(terms: Sequence[BoundTerm]) -> str:
    """bound_terms.csv; only its header where no model has a bound of several parts."""
    columns: dict[str, Callable[[BoundTerm], object]] = {
        "model": lambda term: term.model,
        "term": lambda term: term.term,
        "bits_per_subpixel": lambda term: term.bits_per_subpixel,
    }
    return columns_csv(columns, terms)


def lecture_csv(entries: Sequence[Entry]) -> str:
    """One of the lecture's tables, row for row, with the reproduced figure beside the published one."""
    measured = (*_MEASURED, "num_test_images", "is_current", "tier", "alarm")
    columns: dict[str, Callable[[Entry], object]] = {
        "model": lambda entry: entry.published.key,
        "name": lambda entry: entry.published.name,
        "published_test": lambda entry: entry.published.published_test,
        "published_train": lambda entry: entry.published.published_train,
        "published_source": lambda entry: entry.published.published_source,
        **{name: _of_row(RESULT_COLUMNS[name]) for name in measured},
    }
    return columns_csv(columns, entries)


def _of_row(value: Callable[[Row], object]) -> Callable[[Entry], object]:
    return lambda entry: value(entry.row)


def lecture_entries(rows: Sequence[Row]) -> dict[str, list[Entry]]:
    """Name of each of the lecture's tables -> its rows, in the lecture's order."""
    by_model = {row.model: row for row in rows}
    return {
        name: [Entry(published, by_model[published.key]) for published in table]
        for name, table in LECTURE_TABLES.items()
    }


def all_rows(rows: Sequence[Row]) -> list[Row]:
    """Every row, like the lecture from worst to best by our test figure; rows without a result last."""
    return sorted(rows, key=lambda row: (row.test_bits is None, -(row.test_bits or 0.0)))


def shown_name(row: Row, name: str | None = None) -> str:
    """The name as tables print it, with a mark if the row is stale, a file damaged, or the figure too good."""
    marks = f" {STALE}" * (row.is_current is False) + f" {DAMAGED}" * bool(row.faults) + f" {ALARM}" * bool(row.alarm)
    return (name or row.published.name) + marks


def published_cell(published: PublishedRow) -> str:
    """'3.14 (3.08)', '3.14', or nothing where nothing was published."""
    if published.published_test is None:
        return ""
    train = "" if published.published_train is None else f" ({published.published_train:.2f})"
    return f"{published.published_test:.2f}{train}"


def train_cell(row: Row) -> str:
    """The figure of the training images that were scored, with its error."""
    metrics = row.metrics
    return "" if metrics is None else bits_cell(row, metrics.train_bits_per_subpixel, metrics.train_standard_error)


def bits_cell(row: Row, bits: float | None, error: float | None = None) -> str:
    """'3.457', '≤ 3.457 ± 0.008' for a bound with its error, or nothing without a result."""
    if row.metrics is None or bits is None:
        return ""
    sign = "≤ " if row.metrics.kind == "lower_bound" else ""
    return f"{sign}{bits:.3f}" + ("" if error is None else f" ± {error:.3f}")


TRAIN: Column[Entry] = Column("Ours, train", lambda entry: train_cell(entry.row), is_number=True)
COLUMNS: tuple[Column[Entry], ...] = (
    Column("Model", lambda entry: shown_name(entry.row, entry.published.name)),
    Column("Published", lambda entry: published_cell(entry.published), is_number=True),
    Column(
        "Ours, test",
        lambda entry: bits_cell(
            entry.row, entry.row.test_bits, entry.row.metrics.test_standard_error if entry.row.metrics else None
        ),
        is_number=True,
    ),
    TRAIN,
    Column("How reached", lambda entry: entry.row.metrics.likelihood if entry.row.metrics else ""),
    Column("Proof", lambda entry: tier(entry.row)),
)
PARAMETERS: Column[Entry] = Column(
    "Parameters", lambda entry: number(entry.row.metrics.parameters if entry.row.metrics else None, 0), is_number=True
)
ACTING: Column[Entry] = Column("Can act", lambda entry: number(entry.row.acting_parameters, 0), is_number=True)
PARAMETERS_NOTE = (
    "Parameters: all numbers that are learned or fitted. Can act: without those that masks remove or a softmax cancels."
)
LEAST_SHOWN_ERROR = 0.0005  # bits; a smaller one is not seen in three digits


def result_tables(rows: Sequence[Row], profile: str) -> dict[str, Table]:
    """File name without suffix -> table: the lecture's two, row for row and in their order, and everything."""
    unit = f"{UNIT_NOTE} Profile {profile}."
    everything = [Entry(row.published, row) for row in all_rows(rows)]
    tables = {
        name: make_table(COLUMNS, entries, unit, notes([entry.row for entry in entries]))
        for name, entries in lecture_entries(rows).items()
    }
    everything_notes = [PARAMETERS_NOTE, *notes(rows)]
    columns = (*COLUMNS, PARAMETERS, ACTING)
    return {**tables, "cifar10_all": make_table(columns, everything, unit, everything_notes)}


def notes(rows: Sequence[Row]) -> list[str]:
    """What has to be said under a table of these rows: few images, stale rows, damaged files."""
    counts = sorted({row.metrics.num_test_images for row in rows if row.metrics} - {NUM_TEST_IMAGES})
    lines: list[str] = []
    if counts:
        seen = " or ".join(f"{count:,}" for count in counts)
        lines.append(f"Some rows are scored on only {seen} of the {NUM_TEST_IMAGES:,} test images.")
    if counts := sorted({row.metrics.num_train_images for row in rows if row.metrics} - {NUM_TEST_IMAGES}):
        seen = " or ".join(f"{count:,}" for count in counts)
        lines.append(f"Train: the figure of {seen} training images, the same for every model, with its standard error.")
    return lines + noise_notes(rows) + state_notes(rows)


def noise_notes(rows: Sequence[Row]) -> list[str]:
    """Which figures are estimates from random draws whose own error shows in the digits of the tables."""
    errors = {row.published.name: row.metrics.test_monte_carlo_error or 0.0 for row in rows if row.metrics}
    noisy = [f"{name} {error:.4f}" for name, error in errors.items() if error >= LEAST_SHOWN_ERROR]
    if not noisy:
        return []
    return [f"Estimated from random draws, with a Monte-Carlo error (one standard error) of: {', '.join(noisy)}."]


def state_notes(rows: Sequence[Row]) -> list[str]:
    """What the marks beside the names mean, where there are any."""
    stale = [STALE_NOTE] if any(row.is_current is False for row in rows) else []
    damaged = [f"{DAMAGED} damaged: {fault}." for row in rows for fault in row.faults]
    return [*stale, *damaged, *(f"{ALARM} alarm: {row.alarm}." for row in rows if row.alarm)]
