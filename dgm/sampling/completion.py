"""Completion: the upper half of a test image is given, the model draws the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import Images


def upper_half(model: AutoregressiveModel, images: Images) -> Tensor | None:
    """What `sample_ancestrally` takes as `given`: int64 (N, D), -1 in the lower half.

    None if the model's order does not visit the whole upper half first: then it cannot be conditioned on exactly.
    """
    is_given = torch.zeros(model.spec.shape, dtype=torch.bool)
    is_given[:, : model.spec.height // 2] = True
    is_given = is_given.flatten()
    num_given = int(is_given.sum())
    if not bool(is_given[model.order()[:num_given].cpu()].all()):
        return None
    values = images.flatten(1).long()
    return torch.where(is_given.to(values.device), values, torch.full_like(values, -1))
