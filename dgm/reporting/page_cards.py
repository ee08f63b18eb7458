"""What the page shows of each model: its card's text with the figures in it, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dgm.reporting.card_text import Figures
from dgm.reporting.cards import Card, filled, load_cards, mathml
from dgm.reporting.charts import Picture, curve_picture, levels_picture
from dgm.reporting.page_images import Samples
from dgm.reporting.page_tables import terms_table
from dgm.reporting.results import all_rows, bits_cell, published_cell, train_cell
from dgm.reporting.rows import Row
from dgm.reporting.settings_notes import ProfileSettings
from dgm.reporting.tables import Table, number, three_digits
from dgm.reporting.tiers import tier


@dataclass(frozen=True)
class Fact:
    """One thing that was measured or set, by its name."""

    name: str
    value: str


@dataclass(frozen=True)
class CardView:
    """One model on the page. `text` is None for a model that has no card."""

    model: str
    title: str
    text: Card | None
    what: str
    differs: Sequence[str]
    why: str
    equation: str
    facts: Sequence[Fact]
    settings: Sequence[Fact]
    curve: Picture | None
    levels: Picture | None
    samples: Samples | None
    terms: Table


def card_views(
    rows: Sequence[Row],
    figures: Figures,
    settings: ProfileSettings,
    samples: Mapping[str, Samples],
    test_levels: np.ndarray | None,
) -> list[CardView]:
    """From the best to the worst figure, the models without one last. Shapes: test_levels int64 (256,), counts."""
    cards = load_cards()
    ranked = sorted(all_rows(rows), key=lambda row: (row.test_bits is None, row.test_bits or 0.0))
    return [_view(row, cards.get(row.model), figures, settings, samples.get(row.model), test_levels) for row in ranked]


def _view(
    row: Row,
    card: Card | None,
    figures: Figures,
    settings: ProfileSettings,
    samples: Samples | None,
    test_levels: np.ndarray | None,
) -> CardView:
    values = settings.models[row.model].values if row.is_current and row.model in settings.models else {}
    is_exact = row.metrics is not None and row.metrics.kind == "exact"
    name = card.title if card else row.published.name
    return CardView(
        model=row.model,
        title=name,
        text=card,
        what=filled(card.what, figures) if card else "",
        differs=[text for text in (filled(text, figures) for text in card.differs) if text] if card else [],
        why=filled(card.why, figures) if card and row.metrics else "",
        equation=mathml(card.equation) if card else "",
        facts=_facts(row),
        settings=[Fact(key.replace("_", " "), _shown(value)) for key, value in values.items()],
        curve=curve_picture(row),
        levels=levels_picture(test_levels, samples.level_counts, name)
        if is_exact and samples is not None and test_levels is not None
        else None,
        samples=samples,
        terms=terms_table([row]),
    )


def _shown(value: object) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _facts(row: Row) -> list[Fact]:
    """What stands beside the text; what was not measured is left out."""
    metrics, cost = row.metrics, row.provenance
    facts = [
        ("Ours, test", bits_cell(row, row.test_bits, metrics.test_standard_error if metrics else None)),
        ("Ours, train", train_cell(row)),
        ("Published", published_cell(row.published)),
        ("How reached", metrics.likelihood if metrics else ""),
        ("Proof", tier(row)),
        ("Parameters", number(metrics.parameters if metrics else None, 0)),
        ("of them can act", number(row.acting_parameters, 0)),
        ("Training", f"{cost.train_seconds:,.0f} s on {cost.device}" if cost else ""),
        ("Images seen", number(cost.images_seen if cost else None, 0)),
        ("Training PFLOP", three_digits(row.training_flops / 1e15 if row.training_flops else None)),
    ]
    return [Fact(name, value) for name, value in facts if value]
