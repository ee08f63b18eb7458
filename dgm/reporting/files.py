"""Everything the report of one profile consists of, from the run files alone: equal inputs give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgm.reporting import results
from dgm.reporting.certificates import certificates_table
from dgm.reporting.codecs import codec_table
from dgm.reporting.compute import compute_csv, compute_table
from dgm.reporting.compute_points import compute_points
from dgm.reporting.consistency import NO_TABLES, Expected, ExpectedTables, check_codecs, check_rungs
from dgm.reporting.curves import curves_csv
from dgm.reporting.page import PageData, page_html
from dgm.reporting.page_images import Samples, read_samples
from dgm.reporting.plots import ladder_png, ppca_ladder_png, training_curves_png
from dgm.reporting.rows import ProofCodes, Row, attempt, bound_terms, paired_differences, result_rows
from dgm.reporting.scaling import read_scaling, scaling_csv, scaling_table
from dgm.reporting.scaling_plot import scaling_png
from dgm.reporting.settings_notes import NO_SETTINGS, ProfileSettings, with_acting_parameters
from dgm.reporting.tables import latex, markdown
from dgm.reporting.tiers import tier, with_alarms
from dgm.runs.certificates import FOLDER, read_certificates
from dgm.runs.checked import csv_text
from dgm.runs.files import RunFiles, ladder_file, reference_codecs_file
from dgm.runs.records import ReferenceCodec, Rung, read_reference_codecs, read_rungs


@dataclass(frozen=True)
class Report:
    """`files`: name under reports/<profile>/ -> content. `faults`: one line per damaged run file, which is left out.

    `alarms`: one line per row whose figure is too good to be believed as it stands. `tiers`: by model, how far its
    figure is proven.
    """

    files: Mapping[str, bytes]
    faults: tuple[str, ...]
    damaged_models: frozenset[str]
    alarms: tuple[str, ...]
    tiers: Mapping[str, str]


def make_report(
    profile: str,
    current_keys: Mapping[str, str],
    root: Path = Path("."),
    settings: ProfileSettings = NO_SETTINGS,
    proof_codes: Mapping[str, ProofCodes] | None = None,
    expected: Mapping[str, Expected] | None = None,
    expected_tables: ExpectedTables = NO_TABLES,
    test_images: np.ndarray | None = None,
    scaling_keys: Mapping[tuple[str, str], str] | None = None,
) -> Report:
    """The report of what the run files say; what a damaged file should say is left empty and named as a fault.

    `current_keys` maps a model to the key that a result computed now would carry: others are marked as stale.
    `settings`: those of the profile as params.yaml has it now. `proof_codes`: by model, the digests that a proof
    computed now would carry: others do not count. `expected`, by model, and `expected_tables`: what files of now say.
    `test_images`: uint8 (N, C, H, W), for the page; None where they are not here. `scaling_keys`: by model and budget,
    the keys that measurements of now would carry: others are left out.
    """
    rows = with_alarms(result_rows(profile, current_keys, root, proof_codes, expected))
    rows = [with_acting_parameters(row, settings) for row in rows]
    faults = [fault for row in rows for fault in row.faults]
    differences = paired_differences(rows)
    rungs = attempt(lambda: _rungs(ladder_file(profile, root), expected_tables), faults) or []
    codecs = attempt(lambda: _codecs(reference_codecs_file(profile, root), expected_tables), faults) or []
    codecs = sorted(codecs, key=lambda codec: -codec.joined_bits_per_subpixel)
    certificates, damaged = read_certificates(root / FOLDER)
    faults += damaged
    curves = {row.model: row.curve for row in rows if row.curve}
    samples = _samples(rows, profile, root, faults)
    scaling = read_scaling(profile, scaling_keys or {}, root, faults)
    tables = results.result_tables(rows, profile)
    tables |= {"reference_codecs": codec_table(codecs), "compute": compute_table(rows)}
    tables["scaling"] = scaling_table(scaling)
    page = PageData(
        profile,
        differences,
        tables,
        rungs,
        codecs,
        certificates_table(certificates),
        samples,
        compute_points(root),
        scaling,
        faults,
        settings,
        test_images,
    )
    texts = {
        "results.csv": results.results_csv(rows),
        "paired_differences.csv": results.differences_csv(differences),
        "bound_terms.csv": results.bound_terms_csv(bound_terms(rows)),
        "curves.csv": curves_csv(curves),
        "index.html": page_html(rows, page),
        "cifar10_all.csv": results.results_csv(results.all_rows(rows)),
        "reference_codecs.csv": csv_text(ReferenceCodec, codecs, is_sealed=False),
        "compute.csv": compute_csv(rows),
        "scaling.csv": scaling_csv(scaling),
    }
    texts |= {f"{name}.csv": results.lecture_csv(entries) for name, entries in results.lecture_entries(rows).items()}
    for name, table in tables.items():
        texts |= {f"{name}.md": markdown(table), f"{name}.tex": latex(table)}
    pictures = {
        "training_curves.png": training_curves_png(curves),
        "ladder.png": ladder_png(rows),
        "ppca_ladder.png": ppca_ladder_png(rungs),
        "scaling.png": scaling_png(scaling),
    }
    contents = {name: text.encode("utf-8") for name, text in texts.items()} | pictures
    alarms = tuple(row.alarm for row in rows if row.alarm)
    damaged_models = frozenset(row.model for row in rows if row.faults)
    return Report(contents, tuple(faults), damaged_models, alarms, {row.model: tier(row) for row in rows})


def _samples(rows: Sequence[Row], profile: str, root: Path, faults: list[str]) -> dict[str, Samples]:
    """By model, of those that have a picture."""
    found: dict[str, Samples] = {}
    for row in rows:
        path, name = RunFiles(profile, row.model, root).samples, row.published.name
        read = attempt(lambda path=path, name=name: read_samples(path, name), faults)
        if read is not None:
            found[row.model] = read
    return found


def _rungs(path: Path, expected: ExpectedTables) -> list[Rung]:
    rungs = read_rungs(path)
    check_rungs(path, rungs, expected)
    return rungs


def _codecs(path: Path, expected: ExpectedTables) -> list[ReferenceCodec]:
    codecs = read_reference_codecs(path)
    check_codecs(path, codecs, expected)
    return codecs
