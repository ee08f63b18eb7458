"""What MLflow shows of a run in words."""

from __future__ import annotations

import re

import pytest

from dgm.config.params import load_params
from dgm.registry import MODELS
from dgm.reporting.cards import load_cards
from stages.about import about
from stages.train import recorded_params
from tests.test_repository import ROOT

PARAMS = load_params(ROOT / "params.yaml")
CARDS = load_cards()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_paper_and_a_paragraph_without_gaps(model: str) -> None:
    said, card = about(PARAMS, "cpu", model), CARDS[model]
    assert said.family and "**, cpu profile." in said.note.replace(f" ({card.family})", "")
    assert card.paper is None or f"[{card.paper.title}]({card.paper.url})" in said.note
    assert not set("{}") & set(said.note)
    what = re.split(r"[{[]", card.what)[0].strip()  # before what depends on the settings
    assert what and what[:200] in said.note
    assert f"`mlflow models predict -m runs:/0a1b/{model} " in said.note_of("0a1b")


@pytest.mark.parametrize("model", ["nice", "pixelcnn", "ppca"])
def test_settings_are_named_once(model: str) -> None:
    sections = recorded_params(PARAMS, model, "cpu")
    assert {"model", "training", "evaluation", "run"} <= set(sections)
    for section, values in sections.items():
        assert section not in values and not any(isinstance(value, dict) for value in values.values())
