"""Experiments as a table of at most 120 columns: dvc exp show --csv | python -m stages.experiments

One line per experiment and model whose settings or figure changed: what was changed, and the bits per sub-pixel of the
test images before and after, which may be the same.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from tabulate import tabulate

from dgm.config.params import ALL
from dgm.errors import StageError
from stages.cli import run_stage

TITLES = ("Experiment", "Changed", "Model", "Before", "Test", "Train")
WIDTHS = (20, 44, 23, None, None, None)  # with the numbers and the gaps: within 120
FIXED = {"Experiment", "rev", "typ", "Created", "parent", "State", "Executor"}
NO_OTHER = "no figure changed"  # of settings that many models share
NOTHING = ("", "!")  # DVC's signs: no value (null, or no such key), and a file that cannot be read or is not there


def main() -> None:
    print(experiments_table(sys.stdin))


def experiments_table(lines: Iterable[str]) -> str:
    """The table, from the lines of `dvc exp show --csv`. Raises: StageError if they are something else."""
    baseline: Mapping[str, str] = {}
    cells: list[Sequence[str]] = []
    for record in csv.DictReader(lines):
        if not {"Experiment", "rev", "typ"} <= record.keys():
            raise StageError("standard input: not the output of `dvc exp show --csv`; pipe that command into this one")
        if record["typ"] == "baseline":
            baseline = record
        else:
            cells += _cells(record, baseline)
    if not cells:
        return "No experiment yet: dvc exp run --temp -S models.made.cpu.training.learning_rate=0.001"
    return tabulate(cells, TITLES, tablefmt="plain", maxcolwidths=list(WIDTHS), disable_numparse=True)


def _cells(record: Mapping[str, str], baseline: Mapping[str, str]) -> list[list[str]]:
    """One line per model whose figure or settings are not the baseline's; a line without figures if there is none."""
    is_changed = {name for name in record if name not in FIXED and record[name] != baseline.get(name)}
    is_read = any(record[name] not in NOTHING for name in record if _is_parameter(name))  # not so before it has begun
    parameters = [name for name in sorted(is_changed) if _is_parameter(name) and is_read]
    concerned = is_changed | {_figure(name, record) for name in parameters}
    readable = [name for name in record if name.endswith(".json:test") and record[name] not in NOTHING]
    figures = [name for name in readable if name in concerned]
    changed = [f"{_short(name)}={record[name] or 'null, or removed'}" for name in parameters]
    name, settings = record["Experiment"] or record["rev"], "\n".join(changed)
    if not figures:
        return [[name, settings, NO_OTHER if readable and is_read else "", "", "", ""]]
    return [
        [
            "" if index else name,
            "" if index else settings,
            PurePosixPath(figure.removesuffix(":test")).stem,
            _bits(baseline.get(figure, "")),
            _bits(record[figure]),
            _bits(record[figure.removesuffix("test") + "train"]),
        ]
        for index, figure in enumerate(sorted(figures))
    ]


def _figure(parameter: str, record: Mapping[str, str]) -> str:
    """The figure that a model's own setting decides in the experiment's profile; empty for any other setting."""
    profile = record.get("profile", "")
    match parameter.removeprefix("params.yaml:").split("."):
        case ["models", model, block, *_] if block in (ALL, profile):
            return f"reports/{profile}/bits/{model}.json:test"
        case _:
            return ""


def _is_parameter(name: str) -> bool:
    """Whether a column is one of params.yaml: the others are metrics, and digests of files and folders."""
    is_file = "/" in name or PurePosixPath(name).suffix in (".yaml", ".lock", ".py")
    return name in ("profile", "suite") or ("." in name and not is_file)


def _short(name: str) -> str:
    return name.removeprefix("params.yaml:").removeprefix("models.")


def _bits(text: str) -> str:
    return "" if text in NOTHING else f"{float(text):.4f}"


if __name__ == "__main__":
    run_stage(main)
