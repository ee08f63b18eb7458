"""Asks a trained model, at 32x32 in float64, whether it sees ahead and whether the batch matters. A failure stops."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from dgm.config.params import Params, load_params
from dgm.conformance.real_size import CHANGES_AT_ONCE, examine
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.fingerprints import current_key, fingerprint, training_key
from dgm.model_api.contracts import AutoregressiveModel
from dgm.runs.atomic import array_digest, check_writable
from dgm.runs.checked import write_json
from dgm.runs.files import RunFiles
from dgm.runs.nats import scored_nats
from dgm.runs.progress import track
from dgm.runs.proof_records import Conformance
from dgm.runs.weights import load_trained
from dgm.settings import build_scored_model
from dgm.types import CIFAR10
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device


def main() -> None:
    given = parse_arguments(__doc__)
    examine_row(given.model, given.profile, load_params(), given.device)


def examine_row(name: str, profile: str, params: Params, device_name: str | None) -> None:
    """Asks the trained model and writes the record. Raises: StageError if a check fails, or it was not trained."""
    files, common = RunFiles(profile, name), params.common_config(profile)
    config = common.conformance
    check_writable(files.conformance)
    device = prepare_device(common.run, device_name)
    model = build_scored_model(params, name, profile, CIFAR10)
    weights_sha256 = load_trained(files, model, training_key(params, name, profile))
    model.to(device)
    nats = scored_nats(files, CIFAR10, current_key(params, name, profile), weights_sha256)
    images = torch.from_numpy(load_arrays(DATA).test[: config.num_images].copy()).to(device)
    is_ordered = isinstance(model, AutoregressiveModel)
    num_passes = -(-config.num_changes // CHANGES_AT_ONCE)

    def bar(passes: Iterable[int]) -> Iterable[int]:
        return track(passes, num_passes, f"prove {name}", "pass")

    checks: list[str] = []
    for finding in examine(model, images, config.num_changes, config.num_endings, common.run.seed, bar):
        if not finding.holds:
            raise StageError(f"{name} ({profile}) fails: {finding.check}: {finding.detail}")
        print(f"{name} ({profile}): {finding.check}: {finding.detail}")
        checks.append(finding.check)
    record = Conformance(
        model=name,
        profile=profile,
        checks=checks,
        num_changed_subpixels=config.num_changes if is_ordered else 0,
        num_replaced_endings=config.num_endings if is_ordered else 0,
        num_images_in_company=config.num_images,
        test_nats_sha256=array_digest(nats),
        code=fingerprint("prove", name),
    )
    write_json(files.conformance, record)


if __name__ == "__main__":
    run_stage(main)
