"""Every model has a card, its texts take the figures of a profile and are silent where those do not bear them out."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from dgm.errors import StageError
from dgm.registry import MODELS
from dgm.reporting.card_text import Figures, checked_text
from dgm.reporting.cards import FOLDER, filled, load_cards, mathml
from dgm.reporting.companion import CommittedReport, load_questions, read_report, settings_of
from dgm.settings import model_config
from stages.companion import PROFILE
from tests.test_repository import ROOT

CARDS = load_cards()
QUESTIONS = load_questions()
EQUATIONS = [*(card.equation for card in CARDS.values()), *(each.equation for each in QUESTIONS if each.equation)]


@pytest.fixture(scope="module")
def report() -> CommittedReport:
    from dgm.config.params import load_params

    params = load_params(ROOT / "params.yaml")
    return read_report(
        PROFILE, settings_of({name: model_config(params, name, PROFILE).model_dump() for name in params.suite}), ROOT
    )


def test_every_model_has_a_card_that_leads_to_its_code() -> None:
    assert set(CARDS) == set(MODELS)
    for model, card in CARDS.items():
        module = MODELS[model].partition(":")[0].replace(".", "/")
        assert (ROOT / card.code).exists() and module.startswith(card.code.removesuffix(".py")), model


def test_only_what_the_project_made_up_has_no_paper() -> None:
    without = {model for model, card in CARDS.items() if card.paper is None}
    assert without == {"uniform", "histogram_per_channel", "neighbourhood"}


@pytest.mark.parametrize("model", CARDS)
def test_every_placeholder_has_a_figure_in_the_committed_report(model: str, report: CommittedReport) -> None:
    card = CARDS[model]
    for text in (card.what, card.why, *card.differs):
        for name in re.findall(r"\{([a-z0-9_.]+)", text):
            assert name in report.figures or f"[{name}]" in text, name  # a sentence of its own, left out without it
    assert filled(card.what, report.figures) and filled(card.why, report.figures)


def test_every_answer_is_said_in_full(report: CommittedReport) -> None:
    for each in QUESTIONS:
        for text in each.answer:
            words = re.sub(r"\[[^\]]*\] ?", "", text)
            said = filled(text, report.figures)
            assert len(re.findall(r"[.?]( |$)", said)) == len(re.findall(r"[.?]( |$)", words)), each.question
            assert "{" not in said and "[" not in said


FIGURES: Figures = {"profile": "cpu", "a.test": 4.0, "b.test": 3.5, "a.settings.is_on": True, "a.settings.kind": "zca"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It needs {a.test:.2f} bits.", "It needs 4.00 bits."),
        ("First. It needs {c.test:.2f} bits. Last.", "First. Last."),
        ("[b.test < a.test] Better. [a.test < b.test] Worse.", "Better."),
        ("[a.test > b.test] [profile = cpu] Both. [profile = gpu] Other.", "Both."),
        ("[c.test < a.test] Unknown. [not c.settings.is_on] Unknown too.", ""),
        ("[a.settings.is_on] On. [not a.settings.is_on] Off. [a.settings.kind = pca] No.", "On."),
        ("Costs {a.test:.1f} of 3,072. 4.5 more.", "Costs 4.0 of 3,072. 4.5 more."),
    ],
)
def test_a_sentence_is_said_only_where_the_figures_bear_it_out(text: str, said: str) -> None:
    assert filled(checked_text(text), FIGURES) == said


@pytest.mark.parametrize("text", ["[a.test <] Yes.", "It needs {a.test bits.", "[a.test < b.test", "Costs {A}."])
def test_a_condition_or_placeholder_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        checked_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"why": "[pixelcnn.test is good] Yes."}, "why: cannot read the condition"),
        ({"whyy": "Yes."}, "whyy: Unexpected keyword"),
        ({"title": ""}, "title: String should have at least 1"),
        ({"paper": {"title": "T", "authors": "A", "year": 2016, "url": "arXiv 1"}}, "paper.url: String should match"),
    ],
)
def test_a_card_with_a_fault_is_refused_in_one_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    values = yaml.safe_load((FOLDER / "pixelcnn.yaml").read_text(encoding="utf-8"))
    (tmp_path / "pixelcnn.yaml").write_text(yaml.safe_dump(values | change), encoding="utf-8")
    with pytest.raises(StageError, match=re.escape(message)) as raised:
        load_cards(tmp_path)
    assert "pixelcnn.yaml" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("latex", EQUATIONS)
def test_every_equation_becomes_mathml_and_survives_markdown(latex: str) -> None:
    element = ElementTree.fromstring(mathml(latex))
    assert element.tag == "{http://www.w3.org/1998/Math/MathML}math" and element.get("display") == "block"
    assert "<mi>log</mi><mi>" not in mathml(latex), "a function and its argument need a space"
    # GitHub's Markdown takes a backslash before punctuation away, and may read < as the start of a tag
    assert not re.search(r"\\[^A-Za-z ]|<", latex)


@pytest.mark.parametrize("latex", [r"\frac", r"\nosuchcommand{x}"])
def test_what_is_no_equation_is_refused(latex: str) -> None:
    with pytest.raises(ValueError, match="not an equation"):
        mathml(latex)
