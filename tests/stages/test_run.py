"""`make run`: its order, its lines, its estimate, and what failures and interrupts cost; a double stands for DVC."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import stages.run as run_module
import stages.run_chains as run_chains
from dgm.config.params import Params, load_params
from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.progress import Position
from dgm.runs.records import write_record
from stages.run import Run, main
from stages.run_chains import Chains, PageWriter, log_file
from stages.run_plan import Chain, Pace, in_order, make_chains, training_seconds
from stages.run_screen import PlainScreen, duration, time_left
from tests.reporting.made_up import PROVENANCE

ROOT = Path(__file__).parents[2]
MODELS = ("nice", "uniform", "made")
# `dvc`: all stages are out of date until "done" exists. made's evaluation fails, a file "hold" stops nice's training
DVC = """
import json, os, pathlib, subprocess, sys, time
words = sys.argv[1:]
if words[0] == "status":
    stale = [f"train@smoke-{name}" for name in ("nice", "uniform", "made")] + ["codecs@smoke", "report@smoke"]
    print(json.dumps({} if pathlib.Path("done").exists() else {name: [] for name in stale}))
for target in words[3:] if words[:2] == ["repro", "-q"] else []:
    with open("ran", "a") as file:
        print(target, file=file)
    if target == "evaluate@smoke-made":
        print("error: row of trouble")
        print("ERROR: failed to reproduce 'evaluate@smoke-made': failed to run: python, exited with 1")
        sys.exit(255)
    if target == "train@smoke-nice" and pathlib.Path("hold").exists():
        path = pathlib.Path(os.environ["DGM_PROGRESS_FILE"])
        path.write_text(json.dumps(dict(stage=target, text="step 3", fraction=0.5, seconds_left=600.0)))
        stage = "import pathlib, time\\ntry: print('up', flush=True); time.sleep(60)\\n"
        stage += "except KeyboardInterrupt: pathlib.Path('checkpoint').touch()"
        try:
            subprocess.run([sys.executable, "-c", stage])
            time.sleep(1)  # it writes dvc.lock
        except KeyboardInterrupt:
            pathlib.Path("half of dvc.lock").touch()
        sys.exit("ERROR: failed to reproduce 'train@smoke-nice': failed to run: python, exited with 75")
    if target == "report@smoke":
        print("alarm (smoke): too good")
        pathlib.Path("done").touch()
"""
DRIVER = """
import sys
import stages.dvc_command as of
of.command = lambda *words: [sys.executable, "double.py", *words]
import stages.run_chains as chains
chains.report_command = lambda profile: ["touch", "page"]
from stages.cli import run_stage
from stages.run import main
run_stage(main)
"""


def chain(name: str, seconds: float, after: float = 0.0, is_model: bool = True) -> Chain:
    return Chain(name, (f"train@smoke-{name}",), is_model, seconds, after)


def params_of(text: str) -> str:
    """params.yaml in the smoke profile, with three models."""
    text = re.sub(r"^profile: \w+", "profile: smoke", text, flags=re.MULTILINE)
    suite = "suite:\n" + "".join(f"- {name}\n" for name in MODELS)
    return re.sub(r"^suite:.*?(?=^data:)", suite, text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def small(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with doubles of DVC and of what writes the page."""
    (project / "params.yaml").write_text(params_of((ROOT / "params.yaml").read_text()))
    (project / "double.py").write_text(DVC)
    (project / "data").mkdir()
    (project / "data" / "test.npy").touch()
    path = RunFiles("smoke", "nice").metrics
    path.parent.mkdir(parents=True)
    shutil.copy(RunFiles("cpu", "nice", ROOT).metrics, path)
    (project / "driver.py").write_text(DRIVER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return project


def run_it(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "driver.py", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ran(project: Path) -> list[str]:
    path = project / "ran"
    return path.read_text().split() if path.exists() else []


def test_a_failure_costs_its_row_and_the_last_line_is_the_page(small: Path) -> None:
    process = run_it("--jobs", "2")
    out, _ = process.communicate(timeout=300)
    lines = out.splitlines()
    assert process.returncode == 1, out
    assert re.fullmatch(r"page: /.*/reports/smoke/index.html", lines[-1]), out
    assert {target for target in ran(small) if "made" in target} == {"train@smoke-made", "evaluate@smoke-made"}
    assert [target for target in ran(small) if "nice" in target][-1] == "compress@smoke-nice"
    assert ran(small)[-1] == "report@smoke" and "codecs@smoke" in ran(small)
    rows = [line for line in lines if re.match(r" *\[\d/3\]", line)]
    assert [line.split()[0] for line in rows] == ["[1/3]", "[2/3]", "[3/3]"]
    assert any(re.search(r"nice +≤ 4\.444 bits  \(published 4\.48\) +\d+ s", line) for line in rows), out
    assert any(f"failed: evaluate: row of trouble (log: {log_file('smoke', 'made')})" in line for line in rows), out
    assert "failed: made: evaluate: row of trouble" in lines and "alarm (smoke): too good" in lines
    assert (small / "page").exists()
    assert "\x1b" not in out and "\r" not in out


def test_with_nothing_to_do_no_stage_begins(small: Path) -> None:
    (small / "done").touch()
    process = run_it()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and not ran(small)
    assert out.splitlines()[1:] == ["all 3 models of profile smoke are up to date", out.splitlines()[-1]]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_stop_lets_trainings_write_their_checkpoints(small: Path, number: signal.Signals, code: int) -> None:
    (small / "hold").touch()
    process = run_it("--jobs", "3")
    log = log_file("smoke", "nice")
    until = time.monotonic() + 300
    while not (log.exists() and "up" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    assert (small / "checkpoint").exists() and not (small / "half of dvc.lock").exists()
    assert out.splitlines()[-1].endswith("of 3 models are finished. `make run` goes on from here.")
    assert "report@smoke" not in ran(small)


def test_in_a_terminal_what_runs_is_drawn_beneath_the_lines(small: Path) -> None:
    (small / "hold").touch()
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    words = [sys.executable, "driver.py", "--jobs", "2"]
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    out, until, is_told = b"", time.monotonic() + 300, False
    try:
        while time.monotonic() < until:
            out += os.read(ours, 4096)
            if not is_told and b"step 3" in out and b"[2/3]  about" in out:
                process.send_signal(signal.SIGINT)
                is_told = True
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=300) == 130
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.decode())
    assert re.search(r"nice +train .*step 3 +\d+", text), text
    assert re.search(r"\[2/3\]  about 1\d min left", text) and "failed: evaluate: row of trouble" in text
    os.close(ours)


def test_jobs_side_by_side_have_different_gpus(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_chains, "command", lambda *_: ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES; sleep 0.2"])
    chains = Chains("smoke", [chain(name, 1) for name in "xyz"], 2, ["a", "b"])
    while chains.are_left:
        chains.start_next()
        chains.take_ended()
    used = [log_file("smoke", name).read_text().strip() for name in "xyz"]
    assert used[:2] == ["a", "b"] and used[2] in used[:2]


def test_quick_models_come_first_and_then_the_longest() -> None:
    chains = [chain("long", 400), chain("codecs", 20, 20, False), chain("quick", 40, 20), chain("longest", 500)]
    chains += [chain("quickest", 30, 20), chain("scored", 90, 90)]
    names = [one.name for one in in_order(chains)]
    assert names == ["quickest", "quick", "scored", "longest", "long", "codecs"]


def test_a_chain_begins_with_its_first_stage_that_is_out_of_date(small: Path) -> None:
    params = load_params()
    chains = make_chains(params, {"sample@smoke-nice", "train@smoke-made", "codecs@smoke", "report@smoke"})
    targets = {one.name: one.targets for one in chains}
    assert targets["nice"] == ("sample@smoke-nice", "prove@smoke-nice", "compress@smoke-nice")
    assert targets["made"][0] == "train@smoke-made" and len(targets["made"]) == 5
    assert targets["codecs"] == ("codecs@smoke",) and set(targets) == {"nice", "made", "codecs"}


def test_a_training_is_expected_to_take_as_long_as_before_or_as_its_limit(small: Path) -> None:
    path = RunFiles("smoke", "made").provenance
    path.parent.mkdir(parents=True)
    write_record(path, replace(PROVENANCE, model="made", profile="smoke", train_seconds=7.0))
    params: Params = load_params().changed("nice", "smoke", {"training": {"max_seconds": 31.0}})
    assert training_seconds(params) == {"made": 7.0, "nice": 31.0, "uniform": 19.0}


def test_time_left_is_that_of_the_fullest_place() -> None:
    chains = [chain("a", 100, 10), chain("b", 50), chain("c", 50), chain("d", 20)]
    pace = Pace(chains, jobs=2)
    assert pace.seconds_left(0.0, {}) == 120.0  # a and d | b and c
    pace.begin(chains[0], 0.0)
    pace.begin(chains[1], 0.0)
    assert pace.seconds_left(20.0, {}) == 100.0  # 80 and d | 30 and c
    assert pace.seconds_left(20.0, {"a": 190.0}) == 200.0  # what the training says, and 10 for what follows


def test_time_left_follows_what_has_been_measured() -> None:
    chains = [chain("a", 120), chain("b", 100)]
    pace = Pace(chains, jobs=1)
    pace.begin(chains[0], 0.0)
    assert pace.finish(chains[0], 360.0, is_whole=True) == 360.0
    assert pace.seconds_left(360.0, {}) == pytest.approx(100 * (120 + 360) / (120 + 120))
    failed = Pace(chains, jobs=1)
    failed.begin(chains[0], 0.0)
    failed.finish(chains[0], 1.0, is_whole=False)
    assert failed.seconds_left(1.0, {}) == 100.0


def test_durations_are_as_people_say_them() -> None:
    assert [duration(value) for value in (45.2, 177.4, 3900.0)] == ["45 s", "2 min 57 s", "1 h 5 min"]
    assert time_left(30) == "less than a minute left"
    assert (time_left(1860), time_left(9000)) == ("about 31 min left", "about 2.5 h left")


def test_the_page_is_written_again_after_a_while_and_one_at_a_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["true"], start_new_session=True))
        return started[-1]

    monkeypatch.setattr(run_chains, "start", begin)
    page = PageWriter("smoke")
    assert not page.look(0.0) and not started
    page.want()
    assert not page.look(0.0) and len(started) == 1
    page.want()
    started[0].wait()
    assert page.look(3.0)
    assert not page.look(3.1) and len(started) == 1  # three seconds of writing: not again before 20
    page.look(20.1)
    assert len(started) == 2
    page.stop()


def test_models_that_are_up_to_date_say_so(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run(load_params(), [chain("made", 1)], 2, PlainScreen())
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r" *\[1/3\] nice +≤ 4\.444 bits  \(published 4\.48\) +up to date", lines[0])
    assert re.fullmatch(r" *\[2/3\] uniform +no figure +up to date", lines[1])


def test_a_job_that_says_nothing_has_no_position(project: Path) -> None:
    chains = Chains("smoke", [chain("made", 1)], 1, [])
    assert chains.position(chain("made", 1)) is None
    path = project / ".work" / "run" / "smoke" / "made" / "progress.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"stage": "train@smoke-made", "text": "step", "fraction": 0.5, "seconds_left": 3.0}')
    assert chains.position(chain("made", 1)) == Position("train@smoke-made", "step", 0.5, 3.0)


def test_jobs_must_be_at_least_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--jobs", "0"])
    with pytest.raises(StageError, match="--jobs 0: must be at least 1"):
        main()
    assert run_module.page_of("cpu") == project / "reports" / "cpu" / "index.html"
