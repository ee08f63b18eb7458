"""Damaged files: bit flips, cuts, other models' files, values that cannot be; then the stages that read them."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

import dgm.reporting.files
from tests.faults.ground import Ground
from tests.faults.judge import Outcome, Verdict, broken, judge, refusal
from tests.faults.processes import Attempt, run
from tests.faults.projects import PROFILE, command, replace_file
from tests.faults.record import Kind
from tests.faults.shown import Shown, missing_figures, shown, wrong_figures

NUMBER = re.compile(rb"(?<=[\s:,\[])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?=[\s,\]}]|$)", re.MULTILINE)
DIGIT = re.compile(rb"\d")
NUMBERS = (
    *(b"NaN", b"-3.0", b"1e300", b"null", b'"text"', b"0", b"-1", b"Infinity", b"1e-300", b"true", b"[]", b"{}", b""),
    *(b"1_000", b"0x10", b"010", b"1e400", b'"3.5"', b"-0.0", b"1" * 5000, "\uff11".encode()),
)
READERS = {  # the stages that read a file; the report last, because it reads most
    "runs/smoke/{}/weights/weights.safetensors": ("evaluate", "sample", "prove"),
    "runs/smoke/{}/nats/nats_test.npy": ("prove", "report"),
    "reports/smoke/metrics/{}.json": ("prove", "report", "report"),
    "reports/smoke/provenance/{}.json": ("evaluate", "report", "report"),
    "reports/smoke/bits/{}.json": ("report",),
    "reports/smoke/curves/{}.csv": ("report",),
    "reports/smoke/compression/{}.json": ("report",),
    "reports/smoke/conformance/{}.json": ("report",),
    "reports/smoke/samples/{}.png": ("report",),
    "reports/smoke/codecs.csv": ("report",),
    "reports/smoke/ppca_ladder.csv": ("report",),
    "data/test.npy": ("evaluate", "report"),
    "data/train.npy": ("evaluate",),
    "dvc.lock": ("check", "documents"),
    "dvc.yaml": ("check", "documents"),
    "params.yaml": ("evaluate", "report"),
}
SLOW = ("sample", "prove", "documents")  # a campaign in the tests does without
PAGES = 5  # every so many-th report has its page: most of the time that one takes, and the figures of the tables
Damage = Callable[[bytes, random.Random], bytes]


def flipped_bit(content: bytes, moments: random.Random) -> bytes:
    where = moments.randrange(len(content))
    return content[:where] + bytes([content[where] ^ (1 << moments.randrange(8))]) + content[where + 1 :]


def other_digit(content: bytes, moments: random.Random) -> bytes:
    """Another figure, where a text has digits."""
    found = [match.start() for match in DIGIT.finditer(content[:100_000])]
    if not found:
        return flipped_bit(content, moments)
    where = moments.choice(found)
    digit = (content[where] - 48 + moments.randint(1, 9)) % 10 + 48
    return content[:where] + bytes([digit]) + content[where + 1 :]


def other_number(content: bytes, moments: random.Random) -> bytes:
    """A value that cannot be, in a text or in an array."""
    if content.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(content))
        if array.dtype.kind != "f":
            return flipped_bit(content, moments)
        changed = array.copy()
        changed[moments.randrange(len(array))] = moments.choice((np.nan, np.inf, -1e300, 0.5, -0.0))
        return as_npy(changed)
    found = [match.span() for match in NUMBER.finditer(content[:100_000])]
    if not found:
        return flipped_bit(content, moments)
    start, end = moments.choice(found)
    return content[:start] + moments.choice(NUMBERS) + content[end:]


def otherwise_ordered(content: bytes, moments: random.Random) -> bytes:
    """An array reversed or with other signs, or a text with a line less, twice or elsewhere."""
    if content.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(content))
        return as_npy(array[::-1] if moments.random() < 0.5 else -array)
    lines = content.splitlines(keepends=True)
    a, b = moments.randrange(len(lines)), moments.randrange(len(lines))
    what = moments.randrange(3)
    if what == 0:
        del lines[a]
    elif what == 1:
        lines.insert(b, lines[a])
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def other_encoding(content: bytes, moments: random.Random) -> bytes:
    """As editors and mail save a text."""
    text = content.decode("latin-1")
    return moments.choice(
        (
            b"\xef\xbb\xbf" + content,
            text.encode("utf-16"),
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\n", b"\r"),
            content.replace(b'"', b"'"),
            content.replace(b'"smoke"', b'"\\ud800"').replace(b"smoke", b"\xed\xa0\x80"),
            b"[" * 100_000,
        )
    )


DAMAGES: dict[str, Damage] = {
    "a bit flipped": flipped_bit,
    "another digit": other_digit,
    "another number": other_number,
    "another order": otherwise_ordered,
    "cut": lambda content, moments: content[: moments.randrange(len(content))],
    "empty": lambda content, moments: b"",
    "another encoding": other_encoding,
    "zeros": lambda content, moments: bytes(min(len(content), 10**6)),
    "more at the end": lambda content, moments: content + moments.choice((b"\0", b"3", b"\n", content[:1000])),
}
WEIGHTS = (5, 4, 4, 2, 3, 1, 1, 1, 1)


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def damage(ground: Ground, count: int, is_quick: bool = False) -> Kind:
    """Damages a file, runs a stage that reads it, and compares what it shows."""
    text = "a file that a stage reads flipped, cut, emptied, swapped or with values that cannot be, then that stage"
    with ground.kind("damaged files", text) as kind:
        golden, nats = ground.shown(), ground.nats()
        for number, _, moments in kind.left(range(count)):
            pattern = moments.choice(list(READERS))
            stage = moments.choice(READERS[pattern])
            model = moments.choice(ground.models)
            name = pattern.format(model)
            project = ground.copy()
            file = project / name
            if not file.exists() or (is_quick and stage in SLOW):
                file, stage = project / f"reports/smoke/metrics/{model}.json", "report"
                name = file.relative_to(project).as_posix()
            content = file.read_bytes() or b"\n"
            what, changed = damaged(ground, content, pattern, model, moments)
            if changed == content:
                what, changed = "empty", b""
            replace_file(file, changed)
            is_of_model = "{}" in pattern or stage in ("evaluate", "sample", "prove")
            line = command(stage, model if is_of_model and stage not in ("report", "check", "documents") else None)
            has_page = not is_quick and number % PAGES == 0
            attempt = run(project, line, None if has_page else without_page)
            if stage == "report":
                verdict = of_report(project, attempt, lambda path: wrong_figures(golden, shown(path), nats))
                if verdict.outcome is Outcome.SAME:
                    verdict = without_a_word(golden, shown(project))
            else:
                verdict = of_stage(ground, project, attempt, name)
            kind.add(number, f"{what} in {name}, then {' '.join(line)}", verdict)
    return kind


def without_a_word(golden: Shown, other: Shown) -> Verdict:
    """Of a report that ends well: figures that it lacks have to be marked."""
    if less := missing_figures(golden, other):
        return Verdict(Outcome.SILENT, f"left out without a word: {less[:3]}")
    return Verdict(Outcome.REFUSED, "marked as stale") if other.marked else Verdict(Outcome.SAME)


def without_page() -> None:
    setattr(dgm.reporting.files, "page_html", lambda *_: "")  # noqa: B010  # its type is of the original


def damaged(ground: Ground, content: bytes, pattern: str, model: str, moments: random.Random) -> tuple[str, bytes]:
    others = [other for other in ground.models if other != model]
    if "{}" in pattern and moments.random() < 0.1:
        other = moments.choice(others)
        path = ground.golden / pattern.format(other)
        if path.exists():
            return f"the file of {other}", path.read_bytes()
    what = moments.choices(list(DAMAGES), weights=WEIGHTS)[0]
    return what, DAMAGES[what](content, moments)


def of_stage(ground: Ground, project: Path, attempt: Attempt, name: str) -> Verdict:
    """The damaged file itself aside, nothing may differ."""
    changed = [each for each in ground.changed(project, is_whole=attempt.code == 0) if each.rpartition(" ")[0] != name]
    if name == "params.yaml" and attempt.code == 0:
        return broken(attempt) or Verdict(Outcome.SAME)  # other numbers are the user's
    return judge([attempt], changed)


def of_report(project: Path, attempt: Attempt, wrong: Callable[[Path], list[str]]) -> Verdict:
    """Every figure that it shows as current must be the undisturbed one."""
    if (verdict := broken(attempt)) is not None:
        return verdict
    if (project / "reports" / PROFILE / "results.csv").exists() and (found := wrong(project)):
        return Verdict(Outcome.WRONG, "; ".join(found[:3]))
    return Verdict(Outcome.SAME) if attempt.code == 0 else refusal(attempt)
