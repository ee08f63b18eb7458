"""What no accident leaves: folders, links and pipes in place of files, and impossible values under a right digest."""

from __future__ import annotations

import csv
import io
import os
import random
from collections.abc import Callable
from pathlib import Path

from dgm.runs.seals import SEAL, line_seals, sealed_json, unsealed_json
from tests.faults.damage import READERS, of_report, other_number, without_a_word, without_page
from tests.faults.ground import Ground
from tests.faults.judge import Outcome, Verdict, broken, judge, refusal
from tests.faults.processes import run
from tests.faults.projects import PROFILE, command, replace_file
from tests.faults.record import Kind
from tests.faults.shown import shown, wrong_figures

LIMIT_SECONDS = 60.0
RECORDS = ("metrics/{}.json", "provenance/{}.json", "bits/{}.json", "compression/{}.json", "conformance/{}.json")
TABLES = ("curves/{}.csv", "codecs.csv", "ppca_ladder.csv")
THINGS: dict[str, Callable[[Path], object]] = {  # in an empty place
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a file of 3 GB": lambda path: make_large(path),
}
NOT_MAPPED = ("data/train.npy", "data/test.npy")  # a pipe there waits for whoever downloads


def make_large(path: Path) -> None:
    """Without using the disk."""
    with path.open("wb") as file:
        file.truncate(3 * 10**9)


def things(ground: Ground, count: int) -> Kind:
    """Each file of the reports and each weights file, in turn, with each thing."""
    text = "a folder, a pipe, a device, a link to nowhere or 3 GB in place of a file, then a stage that reads it"
    with ground.kind("things in a file's place", text) as kind:
        golden, nats = ground.shown(), ground.nats()
        for number, _, moments in kind.left(range(count)):
            pattern = moments.choice([name for name in READERS if name not in NOT_MAPPED])
            model, what = moments.choice(ground.models), moments.choice(list(THINGS))
            stage, project = moments.choice(READERS[pattern]), ground.copy()
            path = project / pattern.format(model)
            path.unlink(missing_ok=True)
            THINGS[what](path)
            is_of_model = stage in ("evaluate", "sample", "prove")
            line = command(stage, model if is_of_model else None)
            attempt = run(project, line, without_page, limit_seconds=LIMIT_SECONDS)
            if stage == "report":
                verdict = of_report(project, attempt, lambda path: wrong_figures(golden, shown(path), nats))
                if verdict.outcome is Outcome.SAME:
                    verdict = without_a_word(golden, shown(project))
            else:
                path.rmdir() if what == "a folder" else path.unlink()
                verdict = judge([attempt], ground.changed(project, is_whole=False))
            kind.add(number, f"{what} for {pattern.format(model)}, then {' '.join(line)}", verdict)
    return kind


def sealed(ground: Ground, count: int) -> Kind:
    """Values that cannot be, or can: whoever computes the digest too may write any figure, but no traceback."""
    text = "values of any kind in a record or a table, under a right digest of the file: shown or refused in one line"
    with ground.kind("values under a right digest", text) as kind:
        for number, _, moments in kind.left(range(count)):
            model, name = moments.choice(ground.models), moments.choice((*RECORDS, *TABLES))
            project = ground.copy()
            path = project / "reports" / PROFILE / name.format(model)
            if not path.exists():
                path = project / "reports" / PROFILE / f"metrics/{model}.json"
            replace_file(path, resealed(path, moments))
            attempt = run(project, command("report"), without_page)
            verdict = broken(attempt) or (refusal(attempt) if attempt.code else Verdict(Outcome.SAME))
            kind.add(number, f"a value in {path.relative_to(project)}", verdict)
    return kind


def resealed(path: Path, moments: random.Random) -> bytes:
    """The file with another value, and with the digests of that."""
    content = path.read_bytes()
    if path.suffix == ".json":
        changed = other_number(unsealed_json(content)[0], moments).decode("utf-8")
        return sealed_json(changed).encode() if f'"{SEAL}"' in content.decode() else changed.encode()
    lines = [line[:-1] for line in csv.reader(io.StringIO(content.decode("utf-8")))]
    if len(lines) > 1:
        line = lines[moments.randrange(1, len(lines))]
        line[moments.randrange(len(line))] = other_number(b" 1 ", moments).decode("utf-8").strip()
    text = io.StringIO()
    seals = [SEAL, *list(line_seals(lines))[1:]]
    csv.writer(text, lineterminator="\n").writerows([*line, seal] for line, seal in zip(lines, seals, strict=True))
    return text.getvalue().encode()
