"""What the records and tables of a profile say if they are of the code and the numbers of now."""

from __future__ import annotations

from dgm.coding.reference import codecs
from dgm.config.params import Params
from dgm.fingerprints import training_key
from dgm.model_api.contracts import DEQUANTIZED, ELBO, EXACT, AutoregressiveModel, DensityModel, LatentVariableModel
from dgm.registry import model_class
from dgm.reporting.consistency import Expected, ExpectedTables
from dgm.settings import evaluation_config


def expected_record(params: Params, profile: str, name: str, parameters: int) -> Expected:
    """What the records of a model say if they are of the code and the numbers of now."""
    evaluation, counts = evaluation_config(params, name, profile), params.common_config(profile).evaluation
    return Expected(
        training_key(params, name, profile),
        likelihood_of(params, profile, name),
        parameters,
        counts.num_test_images,
        counts.num_train_images,
        evaluation.num_draws,
    )


def likelihood_of(params: Params, profile: str, name: str) -> str:
    """How the figure of a model is reached: exact, dequantized, elbo or importance-weighted (K)."""
    kind, num_samples = model_class(name), evaluation_config(params, name, profile).num_importance_samples
    if issubclass(kind, LatentVariableModel) and num_samples > 0:
        return f"importance-weighted ({num_samples})"
    if issubclass(kind, AutoregressiveModel):
        return EXACT
    return DEQUANTIZED if issubclass(kind, DensityModel) else ELBO


def expected_tables(params: Params, profile: str) -> ExpectedTables:
    """What the tables of no model hold if they are of the numbers of now."""
    common = params.common_config(profile)
    ladder = common.ppca_ladder
    return ExpectedTables(
        [codec.name for codec in codecs()],
        common.codecs.num_images,
        ladder.num_components,
        ladder.em_components,
        ladder.num_test_images,
    )
