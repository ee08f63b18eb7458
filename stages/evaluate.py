"""Scores one trained model on all test images and on a fixed sample of training images; stores the nats of each."""

from __future__ import annotations

import math

import torch
from pydantic import ValidationError

from dgm.config.params import Params, load_params
from dgm.config.sections import CommonConfig, EvaluationConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import Splits, make_splits
from dgm.errors import StageError
from dgm.evaluation.evaluate import SplitResult, evaluate_split
from dgm.evaluation.together import scored_together
from dgm.fingerprints import current_key, training_key
from dgm.model_api.contracts import Model
from dgm.ranks import take_place, this_rank
from dgm.runs.atomic import array_digest, check_writable, write_array
from dgm.runs.checked import first_fault
from dgm.runs.files import RunFiles
from dgm.runs.progress import track
from dgm.runs.records import Figures, Metrics, write_record
from dgm.runs.weights import load_trained
from dgm.settings import build_scored_model, evaluation_config
from dgm.types import CIFAR10
from stages.about import record_evaluation
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device
from stages.launch import start_processes


def score(
    model: Model, splits: Splits, common: CommonConfig, config: EvaluationConfig, name: str
) -> tuple[SplitResult, SplitResult]:
    """Of the test images and of the sample of training images, as many as params.yaml says, from the first on."""
    counts = common.evaluation
    test, train = (
        evaluate_split(model, torch.from_numpy(images[:count].copy()), config, common.run.seed, title, track)
        for title, images, count in (
            (f"{name} test", splits.test, counts.num_test_images),
            (f"{name} train", splits.train_sample, counts.num_train_images),
        )
    )
    return test, train


def main() -> None:
    ranks = this_rank()  # first of all, so that one rank alone reports what is wrong
    given = parse_arguments(__doc__)
    params = load_params()
    common, config = params.common_config(given.profile), evaluation_config(params, given.model, given.profile)
    num_batches = math.ceil(common.evaluation.num_test_images / config.batch_size)
    start_processes(num_batches, given.device or common.run.device)
    evaluate(given.model, given.profile, params, given.device)
    ranks.leave()


def evaluate(name: str, profile: str, params: Params, device_name: str | None) -> None:
    """Scores the trained model and writes what the stage leaves. Raises: StageError if it was not trained."""
    common, config = params.common_config(profile), evaluation_config(params, name, profile)
    device, ranks = prepare_device(common.run, device_name), this_rank()
    take_place(ranks, device)
    files, key = RunFiles(profile, name), current_key(params, name, profile)
    check_writable(files.nats("test"), files.nats("train"), files.metrics, files.figures)
    model = build_scored_model(params, name, profile, CIFAR10)
    weights_sha256 = load_trained(files, model, training_key(params, name, profile))
    model.to(device)
    splits = make_splits(load_arrays(DATA), common.run.num_training_images)
    counts = common.evaluation
    scored = (splits.test[: counts.num_test_images], splits.train_sample[: counts.num_train_images])
    with scored_together(ranks, model, [torch.from_numpy(images.copy()) for images in scored], config, common.run.seed):
        test, train = score(model, splits, common, config, name)
    if not ranks.is_first:
        return
    for split, result in (("test", test), ("train", train)):
        write_array(files.nats(split), result.nats.numpy())
    write_results(files, (key, weights_sha256), test, train, config.num_draws, model.num_parameters())
    print(f"{name} ({profile}): test {test.bits_per_subpixel:.4f} bits per sub-pixel, {test.method}")
    record_evaluation(params, profile, name, key)


def write_results(
    files: RunFiles, origin: tuple[str, str], test: SplitResult, train: SplitResult, num_draws: int, parameters: int
) -> None:
    """Writes the whole record for the report, and its four figures for DVC.

    origin: the key of the code and the numbers, and the SHA-256 of the weights' file.
    Raises: StageError naming the figure that cannot be right, before anything is written.
    """
    try:
        metrics = Metrics(
            model=files.model,
            profile=files.profile,
            likelihood=test.method,
            kind=test.kind,
            test_bits_per_subpixel=test.bits_per_subpixel,
            test_standard_error=test.standard_error,
            test_monte_carlo_error=test.monte_carlo_error,
            train_bits_per_subpixel=train.bits_per_subpixel,
            train_standard_error=train.standard_error,
            elbo_test_bits_per_subpixel=test.elbo_bits_per_subpixel,
            terms_bits_per_subpixel=test.terms_bits_per_subpixel,
            num_test_images=len(test.nats),
            num_train_images=len(train.nats),
            num_draws=num_draws,
            parameters=parameters,
            code_and_params_key=origin[0],
            test_nats_sha256=array_digest(test.nats.numpy()),
            weights_sha256=origin[1],
        )
    except ValidationError as error:
        raise StageError(
            f"{files.model} ({files.profile}): {first_fault(error)}; train it with a lower learning rate, or score "
            "more images"
        ) from None
    write_record(files.metrics, metrics)
    write_record(
        files.figures,
        Figures(
            test=metrics.test_bits_per_subpixel,
            train=metrics.train_bits_per_subpixel,
            error=metrics.test_standard_error,
            likelihood=metrics.likelihood,
        ),
    )


if __name__ == "__main__":
    run_stage(main)
