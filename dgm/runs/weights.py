"""Weights on disk: one safetensors file, read without executing anything.

The provenance beside it says by which code and numbers it was trained, and which bytes it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file, file_digest
from dgm.runs.checked import REMEDY, own
from dgm.runs.files import RunFiles
from dgm.runs.records import Provenance, read_record
from dgm.runs.system_errors import shortage, unreadable
from dgm.small_files import check_regular, is_there

UNREADABLE = (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError)  # of a file made up to harm


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes parameters and buffers, whole or not at all."""
    with atomic_file(path) as file:
        file.write(save({name: tensor.contiguous().clone() for name, tensor in state.items()}))


def load_weights(path: Path, model: nn.Module, remedy: str) -> None:
    """Fills a freshly built model.

    Raises: StageError naming the file if it is absent, damaged or of another model, and the tensor if one has a NaN or
    an infinity in it.
    """
    if not is_there(path):
        raise StageError(f"{path}: no trained weights; {remedy}")
    try:
        check_regular(path)
        model.load_state_dict(load_file(path))
    except UNREADABLE as error:
        raise StageError(f"{path}: {unreadable(error, remedy)}") from None
    except RuntimeError as error:
        if shortage(error):
            raise
        raise StageError(f"{path}: weights of another architecture ({_first_of(error)}); {remedy}") from None
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise StageError(f"{path}: {name} has values that are not finite; delete it and {remedy}")


def load_trained(files: RunFiles, model: nn.Module, training_key: str) -> str:
    """Fills a freshly built model with the weights that its run trained; the SHA-256 of their file.

    training_key: what a training with the code and the numbers of now would carry.
    Raises: StageError in one line if they are absent, damaged or not finite, were trained by other code or numbers, or
    are not the bytes that their provenance is of.
    """
    remedy = f"run `{files.training_command}`"
    path, record = files.weights, files.provenance
    if not is_there(path):
        raise StageError(f"{path}: no trained weights; {remedy}")
    provenance = own(record, read_record(record, Provenance), files)
    if provenance is None or provenance.training_key is None or provenance.weights_sha256 is None:
        found = "absent, so nothing says" if provenance is None else "does not say"
        raise StageError(f"{record}: {found} with which settings and code {path} was trained; {remedy}")
    if provenance.training_key != training_key:
        keys = f"key {provenance.training_key}, now {training_key}"
        raise StageError(f"{path}: trained with other settings or code than those of now ({keys}); {remedy}")
    try:
        check_regular(path)
        digest = file_digest(path)
    except OSError as error:
        raise StageError(f"{path}: {unreadable(error, remedy)}") from None
    if digest != provenance.weights_sha256:
        found = f"SHA-256 {digest[:16]}..., it says {provenance.weights_sha256[:16]}..."
        raise StageError(f"{path}: not the weights that {record} is of ({found}); {REMEDY}")
    load_weights(path, model, remedy)
    return digest


def _first_of(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
