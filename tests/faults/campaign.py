"""Injects faults on purpose into every stage of a small project and counts what became of them.

`python -m tests.faults.campaign` tries them all, on random images, and writes reports/reliability.md;
`--quick` tries a few of each kind and writes nothing. A campaign that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from dgm.runs.atomic import write_text
from tests.faults import company, damage, hostile, kills, numerics, servers, settings, shortages
from tests.faults.ground import Ground, make_ground
from tests.faults.processes import ROOT, core_seconds
from tests.faults.projects import MODELS
from tests.faults.record import Kind, page

PAGE = Path("reports/reliability.md")
QUICK_MODELS = ("uniform", "pixelcnn")
QUICK_STAGES = ("train", "evaluate", "report")
ALL_STAGES = (  # in turn: those that write more, more often, and the slow ones rarely
    *("download", "check", "train", "evaluate", "sample", "prove", "report", "codecs", "train", "evaluate"),
    *("download", "train", "evaluate", "sample", "prove", "report", "check", "compress", "train", "ppca_ladder"),
)
MOST_STAGES = ("train", "evaluate", "report", "sample", "download", "prove", "codecs")
KEPT = Path(".work/faults")  # a folder for each code and seed: one line of each trial
Trials = Callable[[Ground, int, bool], Kind]


def in_turn(trials: Callable[[Ground, int, tuple[str, ...]], Kind], is_long: bool = False) -> Trials:
    """A kind that is tried on each of several stages."""

    def tried(ground: Ground, count: int, is_quick: bool) -> Kind:
        stages = ALL_STAGES if is_long else MOST_STAGES
        return trials(ground, count, QUICK_STAGES if is_quick else stages)

    return tried


KINDS: dict[str, tuple[Trials, int, int]] = {  # with the numbers of trials of a quick campaign and of a whole one
    "kills": (in_turn(kills.kills, is_long=True), 2, 100),
    "suites": (lambda ground, count, is_quick: kills.suites(ground, count), 0, 2),
    "signals": (in_turn(kills.signals, is_long=True), 1, 40),
    "settings": (lambda ground, count, is_quick: settings.settings(ground, count, 0 if is_quick else 5), 6, 1000),
    "damage": (lambda ground, count, is_quick: damage.damage(ground, count, is_quick), 6, 500),
    "things": (lambda ground, count, is_quick: hostile.things(ground, count), 1, 60),
    "sealed": (lambda ground, count, is_quick: hostile.sealed(ground, count), 1, 100),
    "disk": (in_turn(shortages.full_disk), 1, 28),
    "read_only": (in_turn(shortages.read_only), 1, 28),
    "limits": (in_turn(shortages.limits), 1, 42),
    "clocks": (in_turn(company.clocks), 1, 28),
    "at_once": (in_turn(company.at_once), 1, 28),
    "servers": (lambda ground, count, is_quick: servers.servers(ground, count), 0, 4),
    "weights": (lambda ground, count, is_quick: numerics.weights(ground, count), 1, 40),
    "images": (lambda ground, count, is_quick: numerics.images(ground, count), 1, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few trials of each kind, and no page")
    parser.add_argument("--part", type=float, default=1.0, help="of the whole campaign's trials of each kind")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="default: all")
    parser.add_argument("--out", type=Path, help=f"the page; default: {PAGE}, none with --quick")
    given = parser.parse_args()
    out: Path | None = given.out or (None if given.quick else PAGE)
    command = " ".join(["python -m tests.faults.campaign", *sys.argv[1:]])
    kinds, done = list[Kind](), set[str]()
    with tempfile.TemporaryDirectory(prefix="dgm-faults-") as folder:
        models = QUICK_MODELS if given.quick else MODELS
        kept = None if given.quick else KEPT / f"{code_digest()}-{given.seed}"
        ground = make_ground(Path(folder), given.seed, announce, models, given.quick, kept)
        announce(f"undisturbed project: {core_seconds():.0f} s")
        for name in given.kinds:
            trials, few, whole = KINDS[name]
            if count := few if given.quick else math.ceil(given.part * whole):
                kinds.append(trials(ground, count, given.quick))
            done.add(name)
            untried = [each for each in KINDS if each not in done]
            if out is not None:  # after each kind: it takes long
                write_text(out, page(kinds, given.seed, command, untried))
    bad = sum(len(kind.bad) for kind in kinds)
    announce(f"{sum(len(kind.verdicts) for kind in kinds)} trials, {bad} bad, {core_seconds():.0f} s of one core")
    sys.exit(1 if bad else 0)


def code_digest() -> str:
    """Of all that decides what a trial shows: trials of another code do not count."""
    digest = sha256()
    for folder in ("dgm", "stages", "tests/faults"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def announce(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
