"""The whole benchmark: each model's stages are a chain, several chains side by side, and a line for each that ends.

DVC alone (`dvc repro`) does the same, one stage after the other. Only what is out of date runs; a failure costs its
model's row; a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from dgm.config.documents import check_documents
from dgm.config.params import Params, load_params
from dgm.errors import StageError
from dgm.reporting.published import CATALOGUE
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, read_record
from dgm.runs.termination import exit_code
from stages.cli import DATA, run_stage
from stages.documents import remedy, reproduce
from stages.dvc_command import LOOK_SECONDS, command, environment, interrupt_and_wait
from stages.machine import machine_line
from stages.own_gpu import visible_gpus
from stages.run_chains import Chains, PageWriter, failure, log_file, start
from stages.run_plan import OF_NO_MODEL, Chain, Pace, make_chains, stale_stages
from stages.run_screen import Job, LiveScreen, PlainScreen, duration, make_screen, time_left

FIRST = ("check", "download")


class Run:
    """The chains of one profile, and what is said of them."""

    def __init__(self, params: Params, chains: list[Chain], jobs: int, screen: PlainScreen | LiveScreen) -> None:
        self.failures: dict[str, str] = {}
        self.page = PageWriter(params.profile)
        self._params, self._screen = params, screen
        self._chains = Chains(params.profile, chains, jobs, visible_gpus(os.environ))
        self._pace = Pace(chains, jobs)
        self._began: dict[str, float] = {}
        self._num_done, self._has_page = 0, False
        self._width = max(len(name) for name in (*params.suite, *OF_NO_MODEL))
        busy = {chain.name for chain in chains}
        for model in params.suite:
            if model not in busy:
                self._end_model(model, "up to date")

    @property
    def num_finished(self) -> int:
        """Models whose every stage is up to date."""
        return self._num_done - sum(name in self._params.suite for name in self.failures)

    def run(self) -> None:
        """Until every chain has ended. On Ctrl-C the stages that run are interrupted first."""
        try:
            while self._chains.are_left:
                while (chain := self._chains.start_next()) is not None:
                    self._began[chain.name] = time.monotonic()
                    self._pace.begin(chain, time.monotonic())
                for chain, reason in self._chains.take_ended():
                    self._end(chain, reason)
                if self.page.look(time.monotonic()) and not self._has_page:
                    self._has_page = True
                    self._screen.line(f"page so far: {page_of(self._params.profile)} (written anew as models finish)")
                self._show()
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            self._screen.line("stopping: trainings write their checkpoints (Ctrl-C again ends them at once)")
            self._chains.stop()
            raise
        finally:
            self.page.stop()

    def _end(self, chain: Chain, reason: str | None) -> None:
        now = time.monotonic()
        seconds = self._pace.finish(chain, now, reason is None)
        if reason is not None:
            self.failures[chain.name] = reason
        words = duration(seconds)
        if self._chains.are_left:
            words += f"  · {time_left(self._seconds_left(now))}"
        if chain.is_model:
            self._end_model(chain.name, words)
        else:
            said = f"failed: {reason}" if reason else "done"
            self._screen.line(f"{'':7} {chain.name:<{self._width}}  {said}  {words}")
        self.page.want()

    def _end_model(self, model: str, words: str) -> None:
        self._num_done += 1
        count = f"[{self._num_done}/{len(self._params.suite)}]"
        profile = self._params.profile
        if (reason := self.failures.get(model)) is not None:
            said = f"failed: {reason} (log: {log_file(profile, model)})"
        else:
            said = result(RunFiles(profile, model))
        self._screen.line(f"{count:>7} {model:<{self._width}}  {said}  {words}")

    def _seconds_left(self, now: float) -> float:
        training: dict[str, float] = {}
        for chain in self._chains.running:
            position = self._chains.position(chain)
            if position is not None and position.stage.startswith("train@") and position.seconds_left is not None:
                training[chain.name] = position.seconds_left
        return self._pace.seconds_left(now, training)

    def _show(self) -> None:
        now = time.monotonic()
        running = self._chains.running
        jobs = [Job(chain.name, self._chains.position(chain), now - self._began[chain.name]) for chain in running]
        self._screen.show(jobs, f"[{self._num_done}/{len(self._params.suite)}]  {time_left(self._seconds_left(now))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="models at a time (default: 2); on one GPU: 1")
    jobs: int = parser.parse_args().jobs
    if jobs < 1:
        raise StageError(f"--jobs {jobs}: must be at least 1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # stages of a background job would inherit that it is off
    sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]  # a terminal without ≤
    print(machine_line(Path(), sys.version_info[:3]), flush=True)
    check_documents()
    stale = prepare()
    params = load_params()
    chains = make_chains(params, stale)
    failures: Mapping[str, str] = {}
    if chains:
        failures = run_chains(params, chains, jobs)
    else:
        print(f"all {len(params.suite)} models of profile {params.profile} are up to date", flush=True)
    if stale:
        failures = {**failures, **finish(params.profile, failures)}
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}")
    if failures:
        print("`make run` tries again what failed, and nothing else")
    print(f"page: {page_of(params.profile)}", flush=True)
    if failures:
        raise SystemExit(1)


def prepare() -> set[str]:
    """The stages that are out of date, once params.yaml is checked and the data is here."""
    if not (DATA / "test.npy").exists():  # a fresh clone: what is out of date need not be asked first
        print("CIFAR-10: fetched and verified once", flush=True)
        reproduce(*FIRST)
    stale = look()
    if todo := [stage for stage in FIRST if stage in stale]:
        reproduce(*todo)
        stale = look()
    return stale.difference(FIRST)


def look() -> set[str]:
    """The stages that are out of date. Raises: StageError, with the remedy where DVC cannot read its files."""
    try:
        return stale_stages()
    except StageError as error:
        raise StageError(f"{error}{remedy()}") from None


def run_chains(params: Params, chains: list[Chain], jobs: int) -> dict[str, str]:
    """Runs the chains; those that failed, and why. On Ctrl-C and SIGTERM it ends the process and says how to go on."""
    run = None
    try:
        with make_screen() as screen:
            run = Run(params, chains, jobs, screen)
            run.run()
    except KeyboardInterrupt as interrupt:
        finished = 0 if run is None else run.num_finished
        print(f"stopped; {finished} of {len(params.suite)} models are finished. `make run` goes on from here.")
        raise SystemExit(exit_code(interrupt)) from None
    return run.failures


def finish(profile: str, failed: Mapping[str, str]) -> dict[str, str]:
    """The report as the pipeline makes it, and what is out of date for no known reason."""
    failures: dict[str, str] = {}
    target, log = f"report@{profile}", log_file(profile, "report")
    process = start(command("repro", "-q", "-s", target), log, environment())
    try:
        code = process.wait()
    except KeyboardInterrupt:
        interrupt_and_wait(process.pid)
        process.wait()
        raise
    if (reason := failure(code, log)) is not None:
        failures["report"] = f"{reason} (log: {log})"
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("alarm"):
            print(line)
    known = {*failed, *failures}
    left = sorted(stage for stage in look() if stage.partition("@")[2].removeprefix(f"{profile}-") not in known)
    left = [stage for stage in left if stage.partition("@")[0] not in known]
    if left:
        failures["out of date"] = ", ".join(left)
    return failures


def result(files: RunFiles) -> str:
    """A model's figure beside the published one."""
    try:
        metrics = read_record(files.metrics, Metrics)
    except StageError as error:
        return str(error)
    if metrics is None:
        return "no figure"
    sign = "≤ " if metrics.kind == "lower_bound" else ""
    figure = f"{sign}{metrics.test_bits_per_subpixel:.3f} bits"
    published = CATALOGUE[files.model].published_test if files.model in CATALOGUE else None
    return f"{figure:>12}  {'' if published is None else f'(published {published:.2f})':<16}"


def page_of(profile: str) -> Path:
    """Where a person reads the results."""
    return RunFiles(profile, "").report.resolve() / "index.html"


if __name__ == "__main__":
    run_stage(main)
