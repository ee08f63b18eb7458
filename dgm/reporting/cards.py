"""What is to be said of each model in plain words: one YAML file per model in model_cards/, checked when read.

The page and the lecture companion show the same cards. Their texts hold no figures: `filled` puts those of a profile
in, and leaves out a sentence that the figures do not bear out (dgm/reporting/card_text.py says how).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dgm.errors import StageError
from dgm.reporting.card_text import Figures, checked_text, sentences_that_hold
from dgm.reporting.published import CATALOGUE
from dgm.runs.checked import first_fault

FOLDER = Path(__file__).parent / "model_cards"
STRICT = ConfigDict(extra="forbid", str_strip_whitespace=True)
_FUNCTION = re.compile(r"\\(log|exp|max|tanh|det)\s+(?=[A-Za-z\\])")

Words = Annotated[str, Field(min_length=1)]
Text = Annotated[str, Field(min_length=1), AfterValidator(checked_text)]


@dataclass(frozen=True, config=STRICT)
class Paper:
    """Where a model is from. `url` is a link to the text that anyone can open."""

    title: Words
    authors: Words
    year: Annotated[int, Field(ge=1763, le=2100)]
    url: Annotated[str, Field(pattern=r"^https://\S+$")]


@dataclass(frozen=True, config=STRICT)
class Card:
    """One model. `what`, each of `differs` and `why` may hold placeholders: show them by `filled`.

    `equation` is LaTeX, without dollar signs. `code` is the file or folder of the model in the repository. `paper` is
    None where there is none to name. `differs`: what is not as in the paper.
    """

    model: Words
    title: Words
    family: Words
    what: Text
    equation: Words
    paper: Paper | None
    differs: tuple[Text, ...]
    why: Text
    code: Words


def load_cards(folder: Path = FOLDER) -> dict[str, Card]:
    """Every card by its model's name, in the order of the catalogue. Raises: StageError naming file and field."""
    cards = {path.stem: _card(path) for path in folder.glob("*.yaml")}
    return {model: cards[model] for model in (*CATALOGUE, *sorted(set(cards) - set(CATALOGUE))) if model in cards}


def load_card(model: str, folder: Path = FOLDER) -> Card | None:
    """The card of one model; None if it has none. Raises: StageError naming file and field."""
    path = folder / f"{model}.yaml"
    return _card(path) if path.exists() else None


def _card(path: Path) -> Card:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        row = CATALOGUE.get(path.stem)
        family = row.family if row else "beyond the lecture"
        return TypeAdapter(Card).validate_python({"model": path.stem, "family": family, **values})
    except ValidationError as error:
        raise StageError(f"{path}: {first_fault(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise StageError(f"{path}: not a YAML mapping of a card's fields: {' '.join(str(error).split())}") from None


def filled(text: str, results: Figures) -> str:
    """The text with its figures; without the sentences whose figures are missing or do not bear them out.

    Empty if no sentence is left. `results`: from `profile_figures`.
    """
    return " ".join(sentences_that_hold(text, results))


def mathml(latex: str) -> str:
    """The equation as a MathML element, which browsers draw without a script. Raises: ValueError if it is no LaTeX."""
    from latex2mathml.converter import convert  # of the extra "reports", which training does without

    try:
        element = convert(_FUNCTION.sub(r"\\\1\\,", latex), display="block")  # the library sets "log p" as "logp"
    except Exception as error:  # the library's exceptions have no common class
        raise ValueError(f"not an equation in LaTeX: {latex!r}: {type(error).__name__} {error}") from None
    if unknown := re.search(r"\\[A-Za-z]*", element):
        raise ValueError(f"not an equation in LaTeX: {latex!r}: unknown command {unknown[0]}")
    return element
