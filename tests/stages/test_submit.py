"""Jobs of a cluster, with submitit's own local executor and stages that are shell commands: no Slurm, no training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stages.submit_row as submit_row
from dgm.errors import StageError
from dgm.runs.locks import is_held
from stages.dvc_command import last_line
from stages.own_gpu import visible_gpus
from stages.submit import Place, Submission, main, options_of, table
from stages.submit_row import RowJob, job_folder, log_file
from tests.stages.killed_suites import wait_until

ROOT = Path(__file__).parents[2]
# stands for `dvc repro -s STAGE@PROFILE-MODEL`: notes the stage; made fails, nice and vae pause in their first training
# and in its second vae's job is killed, while what it has started goes on
DVC = """
import os, pathlib, signal, sys, time
target = sys.argv[-1]
with open("ran", "a") as file:
    print(target, file=file)
number = pathlib.Path("ran").read_text().split().count(target)
if target in ("train@smoke-nice", "train@smoke-vae") and number == 1:
    sys.exit(f"ERROR: failed to reproduce '{target}': failed to run: python, exited with 75")
if target == "train@smoke-vae" and number == 2:
    os.kill(os.getppid(), signal.SIGKILL)
    end = time.monotonic() + 60
    while not pathlib.Path("may end").exists() and time.monotonic() < end:
        time.sleep(0.02)
if target == "evaluate@smoke-made":
    print("Traceback (most recent call last):\\nZeroDivisionError: row of trouble", file=sys.stderr)
    sys.exit("ERROR: failed to reproduce 'evaluate@smoke-made': failed to run: python, exited with 1")
"""


@pytest.fixture
def cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose jobs run a double of DVC, in their own processes too."""
    (project / "double.py").write_text(DVC)
    patch = f"import stages.submit_row as row\nrow.command = lambda *words: [{sys.executable!r}, 'double.py', *words]\n"
    (project / "site").mkdir()
    (project / "site" / "sitecustomize.py").write_text(patch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project / "site"), str(ROOT)]))
    monkeypatch.setattr(submit_row, "command", lambda *words: [sys.executable, "double.py", *words])
    return project


def ran(project: Path) -> list[str]:
    path = project / "ran"
    return path.read_text().split() if path.exists() else []


def test_a_failure_costs_its_row_only_and_a_pause_is_queued_anew(cluster: Path) -> None:
    submission = Submission("smoke", Place("local", None, {}, []), 3, None)
    submission.run(["uniform", "made", "nice"])
    assert submission.outcomes["uniform"] == submission.outcomes["nice"] == "finished"
    assert submission.outcomes["made"] == "failed: evaluate@smoke-made: ZeroDivisionError: row of trouble"
    stages = ("train", "evaluate", "sample", "prove", "compress")
    assert [target for target in ran(cluster) if "uniform" in target] == [f"{stage}@smoke-uniform" for stage in stages]
    assert [target for target in ran(cluster) if "made" in target] == ["train@smoke-made", "evaluate@smoke-made"]
    assert ran(cluster).count("train@smoke-nice") == 2 and "compress@smoke-nice" in ran(cluster)
    assert "Traceback" in log_file("smoke", "made").read_text()
    lines = [line.split(maxsplit=1) for line in table("smoke", ["made", "ppca"], submission.outcomes).splitlines()]
    assert lines[1][1].startswith("failed: evaluate@smoke-made: Zero") and lines[2] == ["ppca", "was up to date"]


def test_a_job_that_is_killed_after_a_pause_has_failed_and_what_it_began_keeps_its_lock(cluster: Path) -> None:
    submission = Submission("smoke", Place("local", None, {}, []), 1, None)
    submission.run(["vae"])
    assert submission.outcomes["vae"].startswith("failed: its process was ended")
    assert ran(cluster) == ["train@smoke-vae"] * 2
    lock = job_folder("smoke", "vae") / "lock"
    assert is_held(lock)
    (cluster / "may end").touch()
    wait_until(lambda: not is_held(lock), 60)


def test_before_its_limit_a_job_interrupts_its_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("import time", "try:", "    print('up', flush=True)", "    time.sleep(60)", "except KeyboardInterrupt:")
    text = "\n".join([*lines, "    print('saved')"])
    dvc = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {text!r}])"
    monkeypatch.setattr(submit_row, "command", lambda *_: [sys.executable, "-c", dvc])
    job = RowJob("smoke", "made", None)
    log = log_file("smoke", "made")

    def told(*_: object) -> None:
        again = job.checkpoint().function
        assert again == RowJob("smoke", "made", None)
        raise InterruptedError

    previous = signal.signal(signal.SIGUSR2, told)
    watcher = subprocess.Popen(
        ["sh", "-c", f"until grep -q up {log}; do sleep 0.05; done; kill -USR2 {os.getpid()}"],
        stderr=subprocess.DEVNULL,
    )
    try:
        with pytest.raises(InterruptedError):
            job()
    finally:
        watcher.wait()
        signal.signal(signal.SIGUSR2, previous)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert log.read_text().split() == ["up", "saved"]


AWAY = """
import pathlib, sys
tries = pathlib.Path("tries")
number = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(number))
if number == int(sys.argv[1]) and sys.argv[2] == "push":
    sys.exit("ERROR: failed to push: the disk is away")
if number <= int(sys.argv[1]) and sys.argv[2] == "repro":
    sys.exit("error: MLflow store x cannot be used\\nERROR: failed to reproduce: failed to run: y, exited with 69")
"""


@pytest.mark.parametrize("kind", ["repro", "push"])
def test_a_server_or_a_remote_that_is_away_for_a_moment_costs_time_only(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (project / "away.py").write_text(AWAY)
    monkeypatch.setattr(submit_row, "command", lambda *words: [sys.executable, "away.py", "2", words[0]])
    monkeypatch.setattr(submit_row, "FIRST_PAUSE", 0.01)
    RowJob("smoke", "made", "shared")()
    tries = 10 + (2 if kind == "repro" else 0)
    assert int((project / "tries").read_text()) >= tries
    assert log_file("smoke", "made").read_text().count("tries again in 0 s") >= 1


def test_a_server_that_stays_away_fails_the_row(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "away.py").write_text(AWAY)
    monkeypatch.setattr(submit_row, "command", lambda *_: [sys.executable, "away.py", "9", "repro"])
    monkeypatch.setattr(submit_row, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(submit_row, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(StageError, match=r"^train@smoke-made: error: MLflow store x cannot be used"):
        RowJob("smoke", "made", None)()


def test_results_of_each_stage_are_sent_to_the_remote(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[tuple[str, ...]] = []
    monkeypatch.setattr(submit_row, "command", lambda *given: words.append(given) or ["true"])
    RowJob("smoke", "uniform", "shared")()
    assert words[:2] == [("repro", "-s", "train@smoke-uniform"), ("push", "-r", "shared", "train@smoke-uniform")]
    assert len(words) == 10


def test_the_last_line_is_that_of_the_stage(project: Path) -> None:
    log = project / "log"
    log.write_text(
        "step 1\rstep 2\nerror: data: absent\nERROR: failed to reproduce 'x': failed to run: y, exited with 1\n"
    )
    assert last_line(log) == "error: data: absent"
    assert last_line(project / "none") == ""


def test_options_are_numbers_where_they_can_be() -> None:
    assert options_of(["slurm_partition=gpu", "mem_gb=64"]) == {"slurm_partition": "gpu", "mem_gb": 64}
    with pytest.raises(StageError, match="--option mem_gb: write NAME=VALUE"):
        options_of(["mem_gb"])


def test_slurm_is_given_the_limit_and_the_options(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    place = Place("slurm", 90.0, {"slurm_partition": "gpu", "gpus_per_node": 1}, [])
    with pytest.raises(StageError, match=r"--cluster slurm: .*srun"):
        place.executor("smoke", "made")
    (project / "srun").write_text("")
    (project / "srun").chmod(0o755)
    parameters = place.executor("smoke", "made").parameters
    assert (parameters["time"], parameters["signal_delay_s"], parameters["partition"]) == (90, 120, "gpu")
    with pytest.raises(StageError, match=r"--cluster slurm: .*nonsense"):
        Place("slurm", None, {"nonsense": 1}, []).executor("smoke", "made")


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ("GPU-1f, GPU-2e", ["GPU-1f", "GPU-2e", "GPU-1f"]),
        ("5,3", ["5", "3", "5"]),
        ("MIG-7", ["MIG-7", "MIG-7", "MIG-7"]),
        ("", ["", "", ""]),
        ("-1", ["-1", "-1", "-1"]),
        (None, ["not set", "not set", "not set"]),
    ],
)
def test_each_job_here_sees_a_gpu_of_its_own_of_those_i_have(
    project: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, seen: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen or "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    place = Place("local", 9.0, {}, visible_gpus(os.environ))
    jobs = [RowJob("smoke", f"row{slot}", None, place.variables(slot)) for slot in range(3)]
    monkeypatch.setattr(submit_row, "command", lambda *_: ["sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-not set}"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "hidden by submitit")
    for job in jobs:
        job()
    assert [log_file("smoke", job.model).read_text().splitlines()[0] for job in jobs] == seen
    assert place.executor("smoke", "made").parameters["timeout_min"] == 9.0
    assert Place("slurm", None, {}, ["0", "1"]).variables(1) == {}  # Slurm gives each job its own


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--profile", "gpu"], "profile is cpu; write `profile: gpu`"),
        (["--profile", "cpu", "--jobs", "0"], "--jobs must be at least 1"),
        (["--profile", "cpu", "--minutes", "1"], "--minutes at least 3"),
        (["--profile", "cpu", "--option", "mem_gb=9"], "--option is for Slurm"),
        (["--profile", "cpu", "--models", "mad"], "mad is not in the suite"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["submit", "--cluster", "local", *arguments])
    with pytest.raises(StageError, match=reason):
        main()
    assert not (project / ".work").exists()
