"""What `make run` has to do: the chains of stages that are out of date, in which order, and how long each may take."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dgm.config.budget import SECONDS
from dgm.config.params import Params
from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.records import Provenance, read_record
from dgm.suite.row import STAGES
from stages.dvc_command import dvc

PIPELINE = "dvc.yaml"
OF_NO_MODEL = ("codecs", "ppca_ladder")
QUICK_SECONDS = 60.0  # of training: such models come first, so that there are rows to read soon
UNKNOWN_SECONDS = 120.0  # of a training that has neither a limit nor a predecessor
STAGE_SECONDS = 10.0  # the start of a stage's process
SCORING_SECONDS = {"smoke": 0.0}  # of what comes after training; of the other profiles:
SCORING_OF_ALL_IMAGES = 60.0


@dataclass(frozen=True)
class Chain:
    """Stages that run one after the other, up to the first that fails. name: a model, or the stage of no model.

    seconds: how long it may take; after_training: the part of them that comes after training.
    """

    name: str
    targets: tuple[str, ...]
    is_model: bool
    seconds: float
    after_training: float


def stale_stages() -> set[str]:
    """The stages of dvc.yaml that are out of date. Raises: StageError if DVC cannot read its files."""
    text = dvc("status", "--json", PIPELINE).strip()
    try:
        return set(json.loads(text or "{}"))
    except ValueError:
        raise StageError(f"dvc status: printed no JSON but {text[:100]}") from None


def make_chains(params: Params, stale: Collection[str]) -> list[Chain]:
    """One chain a model from its first stage that is out of date, and those of no model, in the order to begin them."""
    training = training_seconds(params)
    scoring = SCORING_SECONDS.get(params.profile, SCORING_OF_ALL_IMAGES)
    chains: list[Chain] = []
    for model in params.suite:
        targets = [f"{stage}@{params.profile}-{model}" for stage in STAGES]
        first = next((number for number, target in enumerate(targets) if target in stale), None)
        if first is None:
            continue
        after = STAGE_SECONDS * len(targets[max(first, 1) :]) + scoring
        before = STAGE_SECONDS + training[model] if first == 0 else 0.0
        chains.append(Chain(model, tuple(targets[first:]), True, before + after, after))
    for stage in OF_NO_MODEL:
        if (target := f"{stage}@{params.profile}") in stale:
            seconds = STAGE_SECONDS + 2 * scoring
            chains.append(Chain(stage, (target,), False, seconds, seconds))
    return in_order(chains)


def in_order(chains: Iterable[Chain]) -> list[Chain]:
    """Quick models first, the quickest before all; then the longest first, so that none is left alone at the end."""

    def rank(chain: Chain) -> tuple[bool, float, str]:
        is_quick = chain.is_model and chain.seconds - chain.after_training <= QUICK_SECONDS
        return (not is_quick, chain.seconds if is_quick else -chain.seconds, chain.name)

    return sorted(chains, key=rank)


def training_seconds(params: Params) -> Mapping[str, float]:
    """How long each model of the suite may train: as before, else its limit, else as long as the others."""
    seconds: dict[str, float] = {}
    for model in params.suite:
        limit = params.model_section(model, params.profile, "training").get(SECONDS)
        if (earlier := _earlier_seconds(params.profile, model)) is not None:
            seconds[model] = earlier
        elif isinstance(limit, (int, float)):
            seconds[model] = float(limit)
    others = statistics.median(seconds.values()) if seconds else UNKNOWN_SECONDS
    return {model: seconds.get(model, others) for model in params.suite}


def _earlier_seconds(profile: str, model: str) -> float | None:
    try:
        provenance = read_record(RunFiles(profile, model).provenance, Provenance)
    except StageError:  # damaged: the report says so, and the training writes it anew
        return None
    return None if provenance is None else provenance.train_seconds


class Pace:
    """How much time is left, corrected by what the finished chains have taken."""

    PRIOR_SECONDS = 120.0  # so much taken and expected time is assumed at the start, so that one chain decides little

    def __init__(self, chains: Sequence[Chain], jobs: int) -> None:
        self._jobs = jobs
        self._waiting = list(chains)
        self._began: dict[str, tuple[Chain, float]] = {}
        self._expected = self._taken = self.PRIOR_SECONDS

    def begin(self, chain: Chain, now: float) -> None:
        """The chain runs from `now` on, in seconds of one clock."""
        self._waiting.remove(chain)
        self._began[chain.name] = (chain, now)

    def finish(self, chain: Chain, now: float, is_whole: bool) -> float:
        """Seconds that the chain has taken; of one that failed they say nothing about the others."""
        _, began = self._began.pop(chain.name)
        if is_whole:
            self._expected += chain.seconds
            self._taken += now - began
        return now - began

    def seconds_left(self, now: float, training_left: Mapping[str, float]) -> float:
        """Until the last chain ends. training_left: what a training that runs says of itself."""
        factor = self._taken / self._expected
        places = sorted(
            training_left[name] + factor * chain.after_training
            if name in training_left
            else max(0.0, factor * chain.seconds - (now - began))
            for name, (chain, began) in self._began.items()
        )
        places = [0.0] * (self._jobs - len(places)) + places
        for chain in self._waiting:
            places[0] += factor * chain.seconds
            places.sort()
        return max(places, default=0.0)
