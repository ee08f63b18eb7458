"""What MLflow is told of a model besides its curves: in words, how far its figure is proven, and its figures."""

from __future__ import annotations

from dgm.config.params import Params
from dgm.fingerprints import fingerprint
from dgm.reporting.cards import load_card
from dgm.reporting.published import CATALOGUE, PublishedRow
from dgm.reporting.rows import ProofCodes, result_row
from dgm.reporting.run_notes import run_note
from dgm.reporting.tiers import tier
from dgm.runs.files import RunFiles
from dgm.settings import acting_values
from dgm.tracking.results import About, record_results
from dgm.tracking.untracked_run import is_tracking_off


def about(params: Params, profile: str, name: str, tier_of_figure: str | None = None) -> About:
    """From the model's card, the catalogue and params.yaml."""
    row = CATALOGUE.get(name, PublishedRow(name, name, "beyond the lecture", None, None, ""))
    note = run_note(load_card(name), row, profile, acting_values(params, name, profile)["model"])
    return About(row.family, note, tier_of_figure, row.published_test)


def record_evaluation(params: Params, profile: str, name: str, key: str) -> None:
    """Sends the figures of a model that was scored just now, `key`, to its run; not while another record is damaged."""
    if is_tracking_off():
        return
    codes = ProofCodes(fingerprint("compress", name), fingerprint("prove", name))
    row = result_row(RunFiles(profile, name), key, codes)
    if not row.faults:  # which the report names
        record_results(profile, [name], {name: key}, {name: about(params, profile, name, tier(row))})
