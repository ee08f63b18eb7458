"""Everything the report of one profile consists of, from the run files alone: equal inputs give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dgm.reporting import tables
from dgm.reporting.codecs import codec_table
from dgm.reporting.compute import compute_csv, compute_table
from dgm.reporting.curves import long_form, read_curves
from dgm.reporting.page import page_html
from dgm.reporting.plots import ladder_png, ppca_ladder_png, training_curves_png
from dgm.reporting.ppca_ladder import ladder_file, read_rungs
from dgm.reporting.rows import bound_terms, paired_differences, result_rows
from dgm.runs.files import RunFiles, reference_codecs_file
from dgm.runs.records import read_reference_codecs, reference_codecs_csv


def report_files(profile: str, current_keys: Mapping[str, str], root: Path = Path(".")) -> dict[str, bytes]:
    """File name under reports/<profile>/ -> its content.

    `current_keys` maps a model to the key that a result computed now would carry: others are marked as stale.
    Raises: StageError naming a run file that is damaged.
    """
    rows, curves = result_rows(profile, current_keys, root), read_curves(profile, root)
    differences = paired_differences(rows, profile, root)
    terms, rungs = bound_terms(rows, profile, root), read_rungs(ladder_file(profile, root))
    codecs = sorted(
        read_reference_codecs(reference_codecs_file(profile, root)), key=lambda codec: -codec.joined_bits_per_subpixel
    )
    sampled = [row.model for row in rows if RunFiles(profile, row.model, root).samples.exists()]
    texts = {
        "results.csv": tables.results_csv(rows),
        "paired_differences.csv": tables.differences_csv(differences),
        "bound_terms.csv": tables.bound_terms_csv(terms),
        "curves.csv": long_form(curves).to_csv(index=False, lineterminator="\n"),
        "index.html": page_html(rows, differences, terms, rungs, profile, sampled, codecs),
        "cifar10_all.csv": tables.results_csv(tables.all_rows(rows)),
    }
    texts |= {"reference_codecs.csv": reference_codecs_csv(codecs), "compute.csv": compute_csv(rows)}
    readable = tables.readable_tables(rows, profile)
    readable |= {"reference_codecs": codec_table(codecs), "compute": compute_table(rows)}
    for name, table in readable.items():
        texts[f"{name}.md"] = tables.markdown(table)
        texts[f"{name}.tex"] = tables.latex(table)
    texts |= {f"{name}.csv": tables.lecture_csv(entries, rows) for name, entries in tables.LECTURE_TABLES.items()}
    pictures = {
        "training_curves.png": training_curves_png(curves),
        "ladder.png": ladder_png(rows),
        "ppca_ladder.png": ppca_ladder_png(rungs),
    }
    return {name: text.encode("utf-8") for name, text in texts.items()} | pictures
