"""Handing a batch of records to MLflow, and telling a refusal from a store that is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dgm.tracking.causes import AWAY_STATUS, is_network_error
from dgm.tracking.outbox import Entry, RejectedError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RETRIED_STATUS = (401, 403, *AWAY_STATUS)  # the store, not the record, is the trouble


def deliver(client: MlflowClient, run_id: str, batch: Sequence[Entry]) -> None:
    """Records one batch. Raises: RejectedError if the store refuses its content, else whatever the client raises."""
    from mlflow.exceptions import MlflowException

    try:
        send(client, run_id, batch)
    except MlflowException as error:
        if error.get_http_status_code() in RETRIED_STATUS or is_network_error(error):
            raise
        raise RejectedError(str(error)) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RejectedError(str(error)) from error


def send(client: MlflowClient, run_id: str, batch: Sequence[Entry]) -> None:
    """A status or an artifact, alone in its batch, or metrics, params and tags."""
    from mlflow.entities import Metric, Param, RunTag

    first = batch[0]
    if first.kind == "status":
        client.set_terminated(run_id, str(first.value), end_time=first.timestamp_ms)
    elif first.kind == "artifact":
        client.log_artifact(  # pyright: ignore[reportUnknownMemberType]  # MLflow leaves it unannotated
            run_id, str(first.value), first.key or None
        )
    else:
        client.log_batch(
            run_id,
            metrics=[Metric(e.key, float(e.value), e.timestamp_ms, e.step) for e in batch if e.kind == "metric"],
            params=[Param(e.key, str(e.value)) for e in batch if e.kind == "param"],
            tags=[RunTag(e.key, str(e.value)) for e in batch if e.kind == "tag"],
        )
