"""The experiment of a profile in MLflow: found or created, with what its page shows.

MLflow's page reads this from tags of the experiment: the text at the top, and a saved view of the list of runs, whose
columns are the figures; by itself it shows none. Whether it opens the view of trained models or that of language models
is told by a tag in some versions of MLflow, in others (3.17) by the address alone: so the text begins with a link.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dgm.tracking.database import EXPERIMENTS
from dgm.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

NOTE = "mlflow.note.content"
VIEW = "results"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # which view to open: that of trained models
PRIMARY = {
    "mlflow.experiment.primaryMetric.name": "test_bits_per_subpixel",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
}
COLUMNS = {  # of the list of runs, in this order: how the page calls them, and their widths in pixels
    "metrics.`test_bits_per_subpixel`": 165,
    "metrics.`test_standard_error`": 140,
    "metrics.`train_seconds`": 110,
    "tags.`tier`": 160,
    "metrics.`published_test_bits_per_subpixel`": 120,
    "tags.`likelihood`": 150,
    "tags.`family`": 130,
    "attributes.`Models`": 170,
}
ORDER = "metrics.`test_bits_per_subpixel`"
FIRST = {"attributes.`Run Name`": 160, "runDateAndNestInfo": 130}  # on every list
PAGE = "#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={view}"
ABOUT = """[**Table of results**]({page}): likelihood of CIFAR-10 under deep generative models, profile **{profile}**.

The link opens the list of runs with bits, standard error, seconds and tier as columns, the best first.

One run for each training of a model. Its figure is the mean of -log2 P(image) / 3072 over the test images, in bits per
sub-pixel: smaller is better, 8 is a uniform guess. `likelihood` says whether it is exact or a bound, `tier` how far it
is proven. The models and the published figures are those of two tables: van den Oord, Kalchbrenner and Kavukcuoglu,
[Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759) (2016), and Salimans, Karpathy, Chen and Kingma,
[PixelCNN++](https://arxiv.org/abs/1701.05517) (2017).
"""


def find_experiment(client: MlflowClient, store: Store, profile: str) -> str:
    """Id of the profile's experiment, which is created if need be and restored if it was deleted."""
    experiment = _found_or_created(client, store, f"{EXPERIMENTS}{profile}")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    held = experiment.tags
    wanted = KIND | PRIMARY | {VIEW_TAG: saved_view(experiment.creation_time or 0)}
    if NOTE not in held:  # a person may have written another one
        page = PAGE.format(experiment_id=experiment.experiment_id, view=VIEW)
        wanted[NOTE] = ABOUT.format(profile=profile, page=page)
    for name, value in wanted.items():
        if held.get(name) != value:
            _set_tag(client, experiment.experiment_id, name, value)
    return experiment.experiment_id


def _set_tag(client: MlflowClient, experiment_id: str, name: str, value: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.set_experiment_tag(experiment_id, name, value)
    except MlflowException as error:
        if name not in client.get_experiment(experiment_id).tags:  # else another process was first
            raise error


def _found_or_created(client: MlflowClient, store: Store, name: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is not None:
        return experiment
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=store.artifact_location))
    except MlflowException as error:
        experiment = client.get_experiment_by_name(name)  # another process may have been first
        if experiment is None:
            raise error
        return experiment


def saved_view(created_ms: int) -> str:
    """The view of the runs that the page lists under its saved ones: columns and order, written as it writes them."""
    widths = FIRST | COLUMNS
    state = {"orderByKey": ORDER, "orderByAsc": True, "selectedColumns": list(COLUMNS)}
    state |= {"columnOrder": list(widths), "columnWidths": widths}
    view = {"name": "Results", "createdAt": created_ms, "updatedAt": created_ms, "state": json.dumps(state)}
    return json.dumps(view)
