"""One HTML page of a profile: tables, a card for each model, plots, and what the numbers mean. It is one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dgm.reporting.card_text import profile_figures
from dgm.reporting.charts import Picture, compute_picture, differences_picture, drawn, image_bits_picture
from dgm.reporting.compute_points import ComputePoint
from dgm.reporting.noise import noise_table
from dgm.reporting.page_cards import card_views
from dgm.reporting.page_images import Samples, extremes
from dgm.reporting.page_tables import (
    bounds_table,
    compression_table,
    conformance_table,
    differences_table,
    everything_table,
    lecture_table,
    proofs_table,
    provenance_table,
    sources_table,
    starts_table,
)
from dgm.reporting.plots import ladder_figure, ppca_ladder_figure
from dgm.reporting.ppca_ladder import rungs_table
from dgm.reporting.published import REMARKS
from dgm.reporting.results import lecture_entries, notes
from dgm.reporting.rows import PairedDifference, Row
from dgm.reporting.scaling import Scaling
from dgm.reporting.scaling_plot import scaling_figure
from dgm.reporting.settings_notes import NO_SETTINGS, ProfileSettings, basis_notes
from dgm.reporting.tables import Table
from dgm.runs.records import ReferenceCodec, Rung
from dgm.types import CIFAR10, NUM_TRAIN_IMAGES
from dgm.units import nats_to_bits_per_subpixel

FOLDER = Path(__file__).parent
TEMPLATE, SCRIPT, STYLE = "page.html", "page.js", "page.css"


@dataclass(frozen=True)
class PageData:
    """What the page shows beside the rows. `tables`: by file name, those that are files too.

    `faults` says, one line per file, which run files are damaged. `test`: the test images uint8 (N, C, H, W), None
    where they are not here. `points`: of all profiles.
    """

    profile: str
    differences: Sequence[PairedDifference]
    tables: Mapping[str, Table]
    rungs: Sequence[Rung]
    codecs: Sequence[ReferenceCodec]
    certificates: Table
    samples: Mapping[str, Samples]
    points: Sequence[ComputePoint]
    scaling: Scaling
    faults: Sequence[str]
    settings: ProfileSettings = NO_SETTINGS
    test: np.ndarray | None = None


def page_html(rows: Sequence[Row], data: PageData) -> str:
    """The page of these rows. It loads nothing: pictures, style and script are in it, and its policy forbids more."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = profile_figures(data.profile, rows, data.settings, data.codecs, data.rungs, data.differences)
    levels = None if data.test is None else np.bincount(data.test.reshape(-1), minlength=CIFAR10.levels)
    cards = card_views(rows, figures, data.settings, data.samples, levels)
    names = {card.model: card.title for card in cards}
    entries = lecture_entries(rows)
    script, style = ((FOLDER / name).read_text(encoding="utf-8") for name in (SCRIPT, STYLE))
    best = _best_exact(rows)
    return environment.get_template(TEMPLATE).render(
        profile=data.profile,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        num_results=sum(row.metrics is not None for row in rows),
        num_rows=len(rows),
        faults=data.faults,
        alarms=[row.alarm for row in rows if row.alarm],
        table_1=lecture_table(entries["cifar10_pixelrnn"]),
        table_2=lecture_table(entries["cifar10_pixelcnn_pp"]),
        everything=everything_table(rows),
        notes=notes(rows),
        tables=data.tables,
        remarks=REMARKS,
        basis=basis_notes(rows, data.settings),
        noise=noise_table(rows),
        cards=cards,
        differences=differences_table(data.differences),
        differences_picture=differences_picture(data.differences, names),
        compute_picture=compute_picture(data.points),
        points=[point for point in data.points if point.is_published],
        scaling=data.scaling,
        holds_out=data.settings.num_training_images != NUM_TRAIN_IMAGES,
        scaling_picture=drawn(
            lambda: scaling_figure(data.scaling),
            "Validation bits of every model against the operations of training",
        ),
        ladder=drawn(lambda: ladder_figure(rows), "Published and reproduced figures of every model on one axis"),
        bounds=bounds_table(rows),
        starts=starts_table(rows),
        rungs=rungs_table(data.rungs),
        rungs_picture=drawn(
            lambda: ppca_ladder_figure(data.rungs), "Bits per sub-pixel of PPCA against its number of components"
        ),
        certificates=data.certificates,
        compression=compression_table(rows),
        proofs=proofs_table(rows),
        conformance=conformance_table(rows),
        provenance=provenance_table(rows),
        sources=sources_table(),
        extremes=extremes(best, data.test) if best is not None and data.test is not None else None,
        best_picture=_bits_picture(best, names) if best is not None else None,
        best_name=names[best.model] if best is not None else "",
    )


def _best_exact(rows: Sequence[Row]) -> Row | None:
    """Of the current rows whose figure is exact and whose images' nats are here."""
    exact = [(row.test_bits, row.model, row) for row in rows if row.metrics and row.metrics.kind == "exact"]
    usable = [(bits, model, row) for bits, model, row in exact if row.is_current is not False and row.nats is not None]
    return min(usable)[2] if usable else None


def _bits_picture(row: Row, names: Mapping[str, str]) -> Picture:
    bits = -np.asarray(nats_to_bits_per_subpixel(np.asarray(row.nats), CIFAR10))
    return image_bits_picture(bits, names[row.model])
