"""What MLflow shows of a model's run in words: its card, short, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from dgm.reporting.card_text import Value, plain
from dgm.reporting.cards import Card, filled
from dgm.reporting.published import PublishedRow

USE = (
    "Once it is evaluated it scores images, in the project's environment: "
    "`mlflow models predict -m runs:/RUN_ID/{model} --env-manager local -t json -i images.json -o bits.json` "
    "(docs/mlflow.md)."
)


def run_note(card: Card | None, published: PublishedRow, profile: str, settings: Mapping[str, object]) -> str:
    """The paper, one paragraph of what the model is, and how to use it, where RUN_ID stands for the run's own.

    settings: of its `model` section.
    """
    figures: dict[str, Value] = {"profile": profile}
    figures |= {f"{published.key}.settings.{name}": plain(value) for name, value in settings.items()}
    parts = [f"**{published.name}**, {profile} profile."]
    if card is not None:
        parts[0] = f"**{card.title}** ({card.family}), {profile} profile."
        if card.paper is not None:
            paper = card.paper
            parts.append(f"{paper.authors} ({paper.year}), [{paper.title}]({paper.url}).")
        parts.append(filled(card.what, figures))
    if published.published_test is not None:
        parts.append(f"Published: {published.published_test:.2f} bits per sub-pixel ({published.published_source}).")
    return "\n\n".join([*parts, USE.format(model=published.key)])
