"""Broken and strange params.yaml: `check` refuses them in one line, or what it accepts can be trained and scored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.ground import Ground
from tests.faults.judge import PAUSED, Outcome, Verdict, broken, refusal
from tests.faults.processes import Attempt, in_python, run
from tests.faults.projects import command, replace_file
from tests.faults.record import Kind

VALUES = (
    *("nan", ".nan", ".inf", "-.inf", "1e400", "-1", "-1.0", "0", "0.0", "-0.0", "1e-3", "1.0e-320", "1.0e+300"),
    *("9999999999999999999", "9" * 5000, "1" + "0" * 40, "0x10", "0o17", "1_000", "1.5", "3", "1", "2", "64"),
    *("null", "~", "true", "no", "text", "''", "'é ☃'", '"\\0"', "[]", "{}", "[1]", "[[1]]", "{a: 1}", "[nan]"),
    *("2020-13-45", "2020-01-01", "12:30:45", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!x 3"),
    *("*a", "&a 3", "'open", '"open', "[open", "{open", "- 1", ": 3", "? 3", "|", ">", "%", "@x", "`x`", "\t3"),
    *("cuda", "smoke", "cpu", "uniform", "45000", "50000", "adamw", "muon", "bfloat16", "closed_form", "1e9", "1e12"),
)
FACTORS = (2, 0.5, 10, -1, 1000, 1e6, 1e12, 1.0000001)
BYTES = (b"\xff", b"\x00", b"\xc3\x28", b"\xed\xa0\x80", b"\x1b[2J", b"\xef\xbb\xbf", "\u2028".encode(), b"\r", b"\x85")
STAGE_OF_SECTION = {  # what reads a number, and so has to run with it
    "evaluation": "evaluate",
    "sampling": "sample",
    "codecs": "codecs",
    "conformance": "prove",
}
NO_STAGE = ("compression", "ppca_ladder", "profile", "suite", "data")  # slow, or nothing to compute by
LIMIT_SECONDS = 20.0  # of a step with accepted numbers: a large network takes longer, and is no fault
Mutation = tuple[str, bytes, tuple[str, ...]]  # what was done, the file, the place of the number


def settings(ground: Ground, count: int, num_python: int) -> Kind:
    """Mutations of a small params.yaml."""
    text = (
        "values, types, keys, syntax, huge and non-finite numbers, duplicates and encodings of params.yaml,"
        f" {num_python} of them by a Python of their own; what `check` accepts then has to train a step, or to score"
    )
    with ground.kind("params.yaml", text) as kind:
        content = (ground.golden / "params.yaml").read_bytes()
        for number, _, moments in kind.left(range(count)):
            what, mutated, place = mutate(content, moments)
            project = ground.copy(("dvc.yaml", "dvc.lock"))
            replace_file(project / "params.yaml", mutated)
            is_python = number < num_python
            attempt = in_python(project, command("check")) if is_python else run(project, command("check"))
            kind.add(number, what, verdict_of(project, attempt, place))
    return kind


def verdict_of(project: Path, attempt: Attempt, place: tuple[str, ...]) -> Verdict:
    """Of `check`, and of the stage that reads the number if it was accepted."""
    if (verdict := broken(attempt)) is not None:
        return verdict
    if attempt.code != 0:
        return refusal(attempt)
    line = reader_of(place)
    if line is None:
        return Verdict(Outcome.SAME)
    step = run(project, line, limit_seconds=LIMIT_SECONDS)
    if step.code is None or step.code in (0, PAUSED):
        return Verdict(Outcome.SAME)
    bad = broken(step)
    if place[-1] == "device" and not bad:  # which devices a machine has, its stages say before anything else
        return refusal(step)
    reason = f"accepted by check, then {' '.join(line)}: {step.said.strip()[-300:]}"
    return Verdict(bad.outcome if bad else Outcome.SILENT, reason)


def reader_of(place: tuple[str, ...]) -> tuple[str, ...] | None:
    """The command that computes with the number at a place of params.yaml; None for one that is too slow."""
    if not place or set(NO_STAGE) & set(place):
        return None
    model = place[1] if place[0] == "models" and len(place) > 1 else "pixelcnn"
    stage = next((STAGE_OF_SECTION[part] for part in place if part in STAGE_OF_SECTION), "train")
    if stage == "codecs":
        return command(stage)
    return (*command(stage, model), *(("--stop-after-seconds", "0.01") if stage == "train" else ()))


def mutate(content: bytes, moments: random.Random) -> Mutation:
    """One change of a kind that is drawn."""
    values = yaml.safe_load(content)
    text = content.decode("utf-8")
    place = moments.choice(list(places(values)))
    kind = moments.choices(
        ("value", "factor", "key", "syntax", "bytes", "nested", "whole"), weights=(45, 20, 14, 10, 6, 2, 3)
    )[0]
    if kind == "value":
        value = moments.choice(VALUES)
        return f"{'.'.join(place)}: {value[:40]}", with_text(values, place, value), place
    if kind == "factor":
        numbers = [each for each in places(values) if type(at(values, each)) in (int, float)]
        place, factor = moments.choice(numbers), moments.choice(FACTORS)
        number = at(values, place)
        number = int(number * factor) if isinstance(number, int) and factor != 0.5 else number * factor
        return f"{'.'.join(place)}: {number}", with_text(values, place, repr(number)), place
    if kind == "key":
        return with_other_key(values, moments)
    if kind == "syntax":
        what, mutated = with_other_text(text, moments)
        return what, mutated, ()
    if kind == "bytes":
        where, extra = moments.randrange(len(content)), moments.choice(BYTES)
        return f"{extra!r} at {where}", content[:where] + extra + content[where:], ()
    if kind == "nested":
        depth, sign = moments.choice((10, 500, 2000, 20000)), moments.choice(("[", "{a: ", "- ", "? "))
        return f"{depth} times {sign!r}", with_text(values, place, sign * depth), place
    return moments.choice(whole_files(content, moments))


def whole_files(content: bytes, moments: random.Random) -> list[Mutation]:
    """Other files in its place."""
    text = content.decode("utf-8")
    others = {
        "empty": b"",
        "blank": b"\n\n",
        "UTF-16": text.encode("utf-16"),
        "a list": b"- 1\n- 2\n",
        "a number": b"3\n",
        "two documents": content + b"---\n" + content,
        "cut": content[: moments.randrange(len(content))],
        "CRLF": content.replace(b"\n", b"\r\n"),
        "twice": content + content,
        "noise": moments.randbytes(2000),
    }
    return [(what, other, ()) for what, other in others.items()]


def places(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of every value that is no mapping."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from places(value, (*above, key))
    else:
        yield above


def at(values: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        values = values[key]
    return values


def with_text(values: dict[str, Any], place: tuple[str, ...], text: str) -> bytes:
    """The file with a text, as it stands, in place of a value."""
    mark = "PLACEHOLDER"
    copy = yaml.safe_load(yaml.safe_dump(values))
    at(copy, place[:-1])[place[-1]] = mark
    return yaml.safe_dump(copy, sort_keys=False).replace(mark, text, 1).encode("utf-8", "surrogateescape")


def with_other_key(values: dict[str, Any], moments: random.Random) -> Mutation:
    copy = yaml.safe_load(yaml.safe_dump(values))
    inner = [each[:length] for each in places(copy) for length in range(1, len(each) + 1)]
    place = moments.choice(inner)
    node, key = at(copy, place[:-1]), place[-1]
    what = moments.choice(("absent", "misspelt", "upper", "added", "number", "null", "moved", "twice"))
    done = f"{'.'.join(place)}: key {what}"
    if what == "twice":
        line = f"{key}: {yaml.safe_dump(node[key], default_flow_style=True, width=10**6).strip().removesuffix('...')}"
        text = yaml.safe_dump(copy, sort_keys=False)
        indent = "  " * (len(place) - 1)
        above = f"{'  ' * (len(place) - 2)}{place[-2]}:\n" if len(place) > 1 else ""
        head, found, tail = text.partition(above) if above else ("", "", text)
        return done, f"{head}{found}{indent}{line.strip()}\n{tail}".encode(), ()
    value = node.pop(key)
    renamed: dict[str, Any] = {"misspelt": f"{key[:-1]}", "upper": key.upper(), "number": 3, "null": None}
    if what in renamed:
        node[renamed[what]] = value
    elif what == "added":
        node |= {key: value, f"{key}_2": value}
    elif what == "moved":
        copy[f"{key}_"] = value
    return done, yaml.safe_dump(copy, sort_keys=False).encode(), ()


def with_other_text(text: str, moments: random.Random) -> tuple[str, bytes]:
    where = moments.randrange(len(text))
    lines = text.splitlines(keepends=True)
    number = moments.randrange(len(lines))
    what = moments.choice(("letter", "without", "line", "indent", "tab", "swap"))
    if what == "letter":
        letter = moments.choice(":-#{}[],&*!|>'\"%@`?\t\n ")
        return f"{letter!r} at {where}", (text[:where] + letter + text[where:]).encode()
    if what == "without":
        return f"without the letter at {where}", (text[:where] + text[where + 1 :]).encode()
    if what == "line":
        del lines[number]
    elif what in ("indent", "tab"):
        lines[number] = ("\t" if what == "tab" else moments.choice((" ", "   "))) + lines[number]
    else:
        other = moments.randrange(len(lines))
        lines[number], lines[other] = lines[other], lines[number]
    return f"{what} of line {number + 1}", "".join(lines).encode()
