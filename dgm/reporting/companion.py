"""The lecture companion: Markdown pages from the model cards, the questions and the committed report of a profile.

Equal inputs give equal bytes. What the report has decided (proof, alarm, which rows are current) is read from its
results.csv and not decided again, so that the pages say what the report says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic import dataclasses as checked_dataclasses

from dgm.errors import StageError
from dgm.reporting.card_text import Figures, profile_figures
from dgm.reporting.cards import STRICT, Card, Text, Words, filled, load_cards
from dgm.reporting.results import COLUMNS, Entry
from dgm.reporting.rows import PairedDifference, Row, result_rows
from dgm.reporting.settings_notes import ModelSettings, ProfileSettings
from dgm.reporting.written import ResultLine, read_results
from dgm.runs.checked import first_fault, read_csv
from dgm.runs.files import RunFiles, ladder_file, reference_codecs_file
from dgm.runs.records import read_reference_codecs, read_rungs
from dgm.small_files import is_there

QUESTIONS_FILE = Path(__file__).with_name("questions.yaml")
MADE_BY = "<!-- made by `python -m stages.companion`; do not edit -->\n"
FAMILIES = {  # in the order of the lecture
    "closed form": "Fitted in closed form",
    "mixture": "Mixtures",
    "latent variable": "Latent variables",
    "flow": "Flows",
    "diffusion": "Diffusion",
    "autoregressive": "Autoregressive",
}


@checked_dataclasses.dataclass(frozen=True, config=STRICT)
class Question:
    """What a student asks, and the paragraphs of the answer, with placeholders; the equation follows the first one."""

    question: Words
    answer: tuple[Text, ...]
    equation: Words | None = None


@dataclass(frozen=True)
class CommittedReport:
    """What the report of a profile says: the cells of each row by title, all figures, and the rows."""

    profile: str
    rows: Sequence[Row]
    cells: Mapping[str, Mapping[str, str]]
    figures: Figures


def load_questions(path: Path = QUESTIONS_FILE) -> list[Question]:
    """The questions in their order. Raises: StageError naming the file and the field."""
    try:
        return TypeAdapter(list[Question]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise StageError(f"{path}: {first_fault(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}; `git checkout {path}`") from None


def read_report(profile: str, settings: ProfileSettings, root: Path = Path(".")) -> CommittedReport:
    """The report in reports/<profile>. Raises: StageError naming a file that is absent or damaged."""
    folder = RunFiles(profile, "", root).report
    results = folder / "results.csv"
    if not is_there(results):
        raise StageError(f"{results}: absent; run `dvc repro` in the {profile} profile")
    said = {line.model: line for line in read_results(results)}
    rows = [_as_reported(row, said[row.model]) for row in result_rows(profile, {}, root) if row.model in said]
    if faults := [fault for row in rows for fault in row.faults]:
        raise StageError("\n       ".join(faults))
    cells = {row.model: {column.title: column.cell(Entry(row.published, row)) for column in COLUMNS} for row in rows}
    figures = profile_figures(
        profile,
        rows,
        settings,
        read_reference_codecs(reference_codecs_file(profile, root)),
        read_rungs(ladder_file(profile, root)),
        read_csv(folder / "paired_differences.csv", PairedDifference),
    )
    for model, line in ((model, said[model]) for model in cells):
        cells[model]["Proof"] = line.tier
        if line.num_decoded_images is not None:
            figures[f"{model}.num_decoded"] = line.num_decoded_images
    return CommittedReport(profile, rows, cells, figures)


def _as_reported(row: Row, line: ResultLine) -> Row:
    alarm = line.alarm or None
    return replace(row, acting_parameters=line.acting_parameters, is_current=line.is_current, alarm=alarm)


def settings_of(values: Mapping[str, Mapping[str, object]]) -> ProfileSettings:
    """The settings of each model, for texts alone: nothing is counted."""
    return ProfileSettings(None, {model: ModelSettings(0, 0, section) for model, section in values.items()})


def companion_pages(report: CommittedReport, folder: Path, root: Path = Path(".")) -> dict[str, str]:
    """File name -> page. `folder`: where the pages will be, from which their links lead to the repository at `root`."""
    cards = load_cards()
    to_root = os.path.relpath(root, folder)
    by_model = {row.model: row for row in report.rows if row.model in cards}
    pages = {f"{model}.md": model_page(cards[model], row, report, to_root) for model, row in by_model.items()}
    questions = load_questions()
    pages["questions.md"] = questions_page(questions, report)
    pages["README.md"] = index_page([cards[model] for model in by_model], questions, report)
    return {name: MADE_BY + page for name, page in pages.items()}


def index_page(cards: Sequence[Card], questions: Sequence[Question], report: CommittedReport) -> str:
    """The table of contents: the models by family, best last, and the questions."""
    parts = [
        "# Lecture companion",
        "Every model of the benchmark on one page, and the questions that students ask, answered with this project's "
        f"own figures: those of the profile `{report.profile}`, small models, trained for minutes on one CPU core. "
        "Bits per sub-pixel on the test images of CIFAR-10, smaller is better; ≤ marks a bound.",
        "[Questions and answers](questions.md)",
    ]
    order = {row.model: -(row.test_bits or 0.0) for row in report.rows}
    for family in (*FAMILIES, *sorted({card.family for card in cards} - set(FAMILIES))):
        members = sorted((card for card in cards if card.family == family), key=lambda card: order[card.model])
        if members:
            lines = ["| Model | Ours | Published | How reached |", "|:--|--:|--:|:--|"]
            for card in members:
                cells = report.cells[card.model]
                lines.append(
                    f"| [{card.title}]({card.model}.md) | {cells['Ours, test']} | {cells['Published']} "
                    f"| {cells['How reached']} |"
                )
            parts += [f"## {FAMILIES.get(family, family)}", "\n".join(lines)]
    titles = [f"{number}. [{each.question}](questions.md#{number})" for number, each in enumerate(questions, start=1)]
    return "\n\n".join([*parts, "## Questions", "\n".join(titles)]) + "\n"


def model_page(card: Card, row: Row, report: CommittedReport, to_root: str) -> str:
    """One model: what it is, its equation and paper, figures, what differs, why, its curve and its samples."""
    cells, figures = report.cells[card.model], report.figures
    parts = [f"# {card.title}", f"*{FAMILIES.get(card.family, card.family)}* · [all models](README.md) · "
             f"[questions](questions.md) · [code]({to_root}/{card.code})"]  # fmt: skip
    parts += [filled(card.what, figures), display(card.equation)]
    if card.paper is not None:
        parts.append(f"{card.paper.authors} ({card.paper.year}), [{card.paper.title}]({card.paper.url}).")
    shown = {"Ours, test": "Ours, test images", "Ours, train": "Ours, training images", "Published": "Published"}
    table = [f"| {name} | {cells[title] or 'none'} |" for title, name in shown.items()]
    table += [f"| How reached | {cells['How reached']} |", f"| Proof | {cells['Proof']} |"]
    parts.append("\n".join(["| | Bits per sub-pixel |", "|:--|:--|", *table]))
    if row.published.note and cells["Published"]:
        parts.append(f"The published figure: {row.published.note}")
    if differs := [text for text in (filled(text, figures) for text in card.differs) if text]:
        parts += ["## What differs here", "\n".join(f"- {text}" for text in differs)]
    parts += ["## Why its figure is what it is", filled(card.why, figures)]
    if chart := curve_chart(row):
        parts += ["## Training", chart]
    picture = f"reports/{report.profile}/samples/{card.model}.png"
    parts += ["## Samples", f"![Images drawn from {card.title}]({to_root}/{picture})", _caption(row)]
    return "\n\n".join(parts) + "\n"


def _caption(row: Row) -> str:
    if row.metrics is None or row.metrics.kind != "exact":  # only those that go pixel by pixel can complete an image
        return "Images drawn from the model."
    return (
        "In the upper rows, images drawn from the model. In the lower rows, test images, and under each of them the "
        "same image with its lower half drawn by the model."
    )


def curve_chart(row: Row) -> str:
    """The validation figures over the images seen, as a chart that GitHub draws; empty without validation."""
    points = [point for point in row.curve if point.validation_bits_per_subpixel is not None]
    if len(points) < 2:
        return ""
    bits = [f"{point.validation_bits_per_subpixel:.3f}" for point in points]
    seen = [f'"{point.images_seen:,}"' for point in points]
    return "\n".join(
        [
            "Bits per sub-pixel of validation images, over the images seen in training:",
            "",
            "```mermaid",
            "xychart-beta",
            f'    x-axis "images seen" [{", ".join(seen)}]',
            '    y-axis "bits per sub-pixel"',
            f"    line [{', '.join(bits)}]",
            "```",
        ]
    )


def display(latex: str) -> str:
    """An equation on lines of its own, as GitHub draws it."""
    return f"$$\n{latex}\n$$"


def questions_page(questions: Sequence[Question], report: CommittedReport) -> str:
    """All questions with their answers."""
    parts = ["# Questions and answers", f"All figures are of the profile `{report.profile}`. [All models](README.md)"]
    for number, each in enumerate(questions, start=1):
        paragraphs = [text for text in (filled(text, report.figures) for text in each.answer) if text]
        if each.equation is not None:
            paragraphs.insert(1, display(each.equation))
        parts += [f'<a id="{number}"></a>', f"## {number}. {each.question}", *paragraphs]
    return "\n\n".join(parts) + "\n"
