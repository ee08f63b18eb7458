"""A real MLflow server that is killed while a model trains, and comes back: the training goes on, nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import yaml

from dgm.runs.files import RunFiles
from dgm.runs.records import read_curve
from tests.faults.ground import Ground
from tests.faults.judge import Outcome, Verdict, broken
from tests.faults.processes import Attempt, run, start
from tests.faults.projects import PROFILE, command, outputs, replace_file, write_yaml
from tests.faults.record import Kind

MODEL = "pixelcnn"
NUM_STEPS = 60
START_SECONDS = 180.0
MEASURED = ("train_bits_per_subpixel", "validation_bits_per_subpixel")
DELIVERIES = 4  # commands within which all that was kept has to arrive


class Server:
    """`mlflow server` on one port, with its store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers. Raises: RuntimeError."""
        options = f"--backend-store-uri sqlite:///{self.folder}/store.db --artifacts-destination {self.folder}/files"
        place = f"--host 127.0.0.1 --port {self._port} --workers 1"
        line = [sys.executable, "-m", "mlflow", "server", *options.split(), *place.split()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1.0):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("mlflow server does not start")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def points(self) -> dict[str, set[tuple[str, int, float]]]:
        """(metric, step, value) by finished run."""
        query = "select r.run_uuid, m.key, m.step, m.value from metrics m join runs r using (run_uuid) where status = ?"
        with closing(sqlite3.connect(self.folder / "store.db")) as database:
            rows = database.execute(query, ("FINISHED",)).fetchall()
        found: dict[str, set[tuple[str, int, float]]] = {}
        for run_id, key, step, value in rows:
            found.setdefault(run_id, set()).add((key, step, value))
        return found


@contextmanager
def server_in(folder: Path) -> Generator[Server]:
    """A server that is killed at the end of the block, also where SIGTERM ends the campaign within it."""
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        signal.signal(signal.SIGTERM, handler)


def servers(ground: Ground, count: int) -> Kind:
    """Every other server is back before the training ends, the others after it."""
    text = "a real MLflow server killed within a training and started again: same weights, every point arrives"
    with ground.kind("MLflow server dies", text) as kind:
        if not list(kind.left(range(count))):
            return kind
        project = ground.copy(outputs("train", MODEL))
        values = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        values["training_defaults"][PROFILE] |= {"max_steps": NUM_STEPS, "validate_every": 5}
        (project / "params.yaml").unlink()
        write_yaml(project / "params.yaml", values)
        line = command("train", MODEL)
        undisturbed = run(project, line)
        if undisturbed.code:
            raise RuntimeError(undisturbed.said)
        weights = RunFiles(PROFILE, MODEL, project).weights.read_bytes()
        with server_in(ground.folder / "server") as server:
            variables = {"MLFLOW_TRACKING_URI": server.uri}
            for number, _, moments in kind.left(range(count)):
                part, is_back_soon = moments.random(), number % 2 == 0
                replace_file(RunFiles(PROFILE, MODEL, project).weights, b"")
                before = set(server.points())
                running = start(project, line, variables=variables)
                scratch = project / ".scratch" / PROFILE / MODEL
                while not list(scratch.glob("*.lock")) and not running.has_ended():
                    time.sleep(0.01)
                time.sleep(part * undisturbed.seconds)
                server.kill()
                if is_back_soon:
                    server.start()
                attempt = running.wait()
                if not is_back_soon:
                    server.start()
                verdict = of_training(project, attempt, weights)
                if verdict.is_good and attempt.code == 0:
                    verdict = arrived(project, server, variables, before)
                when = "soon" if is_back_soon else "later"
                kind.add(number, f"after {part:.2f} of the training, back {when}", verdict)
    return kind


def of_training(project: Path, attempt: Attempt, weights: bytes) -> Verdict:
    """It ends as without a server; one that died before the first word with it is a refusal."""
    if (verdict := broken(attempt)) is not None:
        return verdict
    if attempt.code:
        is_said = "MLFLOW_TRACKING_URI" in attempt.errors and attempt.errors.strip().count("error: ") == 1
        return Verdict(Outcome.REFUSED if is_said else Outcome.SILENT, attempt.errors[-300:])
    is_same = RunFiles(PROFILE, MODEL, project).weights.read_bytes() == weights
    return Verdict(Outcome.SAME) if is_same else Verdict(Outcome.WRONG, "other weights")


def arrived(project: Path, server: Server, variables: dict[str, str], before: set[str]) -> Verdict:
    """Whether a finished run has every point of the curve; further commands deliver what was kept."""
    curve = read_curve(RunFiles(PROFILE, MODEL, project).curve)
    wanted = {
        (key, point.step, value) for point in curve for key in MEASURED if (value := getattr(point, key)) is not None
    }
    missing = wanted
    for _ in range(DELIVERIES):
        found = [points for run_id, points in server.points().items() if run_id not in before]
        missing = min((wanted - points for points in found), key=len, default=wanted)
        if not missing:
            return Verdict(Outcome.SAME)
        run(project, command("train", "uniform"), variables=variables)
    return Verdict(Outcome.SILENT, f"{len(missing)} of {len(wanted)} points did not arrive")
