"""A tiny configuration of every model, and of a training; tests/variants.py has more of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.untracked_run import UntrackedRun as UntrackedRun
from dgm.config.parse import parse
from dgm.conformance.checks import all_images as all_images
from dgm.model_api.contracts import Fitted, GradientTrained, Model
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from dgm.types import ImageSpec

STARTED: dict[str, Any] = {"num_start_images": 50, "scored_fraction": 0.5}  # models of dgm.families.started_softmax
PLAIN: dict[str, Any] = {"num_start_images": 0, "scored_fraction": 1.0}

TINY_MODELS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "histogram_per_channel": {"pseudo_count": 0.5},
    "histogram_left": {"candidate_pseudo_counts": [1.0, 4.0], "validation_fraction": 0.25},
    "ridge_autoregressive": {"radius": 2, "ridge": 1e-3, "num_scales": 3, "uniform_share": 0.01, "num_fit_images": 64},
    "multivariate_gaussian": {"num_fit_images": None},
    "ppca": {"num_components": 3, "method": "closed_form", "num_fit_images": None},
    "mixture_of_gaussians": {
        "num_components": 2,
        "basis": "zca",
        "num_fit_images": None,
        "has_mirrored_whitening": True,
        "mean_pseudo_counts": 1.0,
        "variance_pseudo_counts": 10.0,
        "weight_pseudo_counts": 1.0,
        "min_images": 1.0,
    },
    "deep_gmm": {
        "block_size": 4,
        "num_components": 2,
        "tree_states": [2],
        "num_fit_images": None,
        "has_mirrored_whitening": True,
        "num_shared_images": 64,
        "num_shared_iterations": 1,
        "shared_pseudo_counts": 1.0,
        "position_pseudo_counts": 10.0,
        "tree_pseudo_counts": 0.1,
    },
    "nice": {
        "num_couplings": 2,
        "num_hidden_layers": 1,
        "num_hidden": 6,
        "dropout": 0.0,
        "num_whitening_images": None,
        "has_mirrored_whitening": True,
        "num_scale_images": 2000,
    },
    "real_nvp": {
        "num_features": 3,
        "num_blocks": 1,
        "num_scales": 2,
        "norm": "act_norm",
        "margin": 0.05,
        "num_start_images": 256,
    },
    "vae": {
        "features": [4, 5],
        "stem_stride": 2,
        "num_blocks": 1,
        "num_latents": 6,
        "kl_warmup_fraction": 0.3,
        "correction_scale": 2.0,
        "num_start_images": 20,
    },
    "vae_iaf": {
        "num_layers": 2,
        "num_features": 6,
        "num_latents": 5,
        "stem_stride": 2,
        "num_hidden_layers": 2,
        "free_nats_per_map": 0.01,
        "has_subpixel_scale": True,
        "has_linear_start": True,
        "num_start_images": 20,
    },
    "draw": {
        "num_steps": 4,
        "num_hidden": 7,
        "num_latents": 5,
        "read_size": 4,
        "write_size": 4,
        "has_subpixel_scale": True,
        "has_linear_start": True,
        "correction_scale": 2.0,
        "num_start_images": 20,
    },
    "conv_draw": {
        "num_steps": 2,
        "num_hidden": 5,
        "num_latents": 4,
        "num_read_features": 3,
        "stride": 2,
        "kernel_size": 3,
        "read_kernel_size": 5,
        "has_linear_start": True,
        "correction_scale": 2.0,
        "num_start_images": 20,
    },
    "made": {
        "ordering": "random",
        "hidden_sizes": [7, 6],
        "num_components": 2,
        "num_masks": 3,
        "ensemble_size": 2,
        "mask_seed": 0,
        "dropout": 0.1,
        "regression_radius": 1,
        "num_regression_images": 50,
    },
    "wavenet": {
        "num_residual_features": 5,
        "num_skip_features": 6,
        "subpixel_dilations": [1, 2],
        "pixel_dilations": [1],
        "row_dilations": [1],
        "num_cycles": 2,
        **STARTED,
    },
    "char_rnn": {
        "num_embedding_features": 4,
        "num_hidden": 6,
        "num_layers": 2,
        "has_position_features": True,
        "segment_rows": 1,
    },
    "pixelcnn": {"num_features": 4, "num_blocks": 2, "num_head_features": 7, **STARTED},
    "pixelcnn_pp": {
        "num_filters": 4,
        "num_resnets": 1,
        "num_stages": 2,
        "num_mixtures": 2,
        "dropout": 0.1,
        "weight_norm": True,
        "num_init_images": 16,
    },
    "hourglass": {
        "radius": 2,
        "residual_radius": 1,
        "num_features": 5,
        "num_blocks": 2,
        "reach": 1,
        "shortening": 2,
        "middle_features": 4,
        "num_middle_layers": 1,
        "num_heads": 2,
        "num_mixtures": 2,
        "crop_size": 6,
        "ridge": 1e-3,
        "num_fit_images": 64,
    },
    "gated_pixelcnn": {"num_features": 4, "num_layers": 2, "kernel_size": 3, "num_head_features": 7, **STARTED},
    "row_lstm": {"num_hidden": 4, "num_layers": 2, "num_head_features": 7, "num_mixtures": 0, **STARTED},
    "diagonal_bilstm": {"num_hidden": 4, "num_layers": 2, "num_head_features": 7, **STARTED},
    "ride": {
        "neighbourhood_rows": 1,
        "neighbourhood_reach": 2,
        "num_hidden": 4,
        "num_layers": 2,
        "num_components": 2,
        "num_scales": 2,
        "num_gate_features": 3,
        "num_whitening_images": 2000,
        "num_start_images": 100,
    },
    "neighbourhood": {
        "radius": 2,
        "residual_radius": 1,
        "error_rows": 2,
        "error_reach": 2,
        "num_hidden": 5,
        "num_blocks": 1,
        "num_mixtures": 2,
        "pixels_per_image": 3,
        "ridge": 1e-6,
        "num_fit_images": 50,
    },
    "deep_diffusion": {
        "block": 2,
        "num_conv_layers": 2,
        "num_conv_features": 5,
        "num_dense_layers": 2,
        "num_dense_features": 4,
        "num_dense_outputs": 2,
        "num_head_layers": 1,
        "num_head_features": 6,
        "num_bumps": 3,
        "num_steps": 5,
        "schedule": "reciprocal",
        "first_variance": 0.05,
        "has_linear_start": True,
        "num_start_images": None,
        "has_mirrored_start": True,
        "num_evaluation_steps": 0,
    },
}

TRAINED = [name for name in MODELS if issubclass(model_class(name), GradientTrained)]

# image sizes: enumerable; large enough for a leak of any direction; both divisible by what every architecture asks for
ENUMERABLE = ImageSpec(channels=3, height=1, width=2, levels=3)
SMALL = ImageSpec(channels=3, height=8, width=8, levels=4)


def random_images(spec: ImageSpec, count: int, seed: int = 0) -> Tensor:
    """uint8 (N, C, H, W), smooth enough that fits are well conditioned."""
    generator = generator_for(seed)
    return torch.randint(0, spec.levels, (count, *spec.shape), generator=generator).to(torch.uint8)


def tiny_model(name: str, spec: ImageSpec, seed: int = 0, changes: Mapping[str, Any] | None = None) -> Model:
    """A model with random weights (also where it initialises to zero), or fitted to random images, in float64."""
    model = untrained_model(name, spec, seed, changes).double()
    if isinstance(model, Fitted):
        images = random_images(spec, 64, seed)
        model.start(images, generator_for(seed))
        model.finish(images)
    elif isinstance(model, GradientTrained):
        model.prepare(random_images(spec, 64, seed), generator_for(seed))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=parameter.dtype))
    return model.eval()


def untrained_model(name: str, spec: ImageSpec, seed: int = 0, changes: Mapping[str, Any] | None = None) -> Model:
    """A freshly constructed model in float32, as the train stage builds it. changes: to its tiny configuration."""
    torch.manual_seed(seed)
    kind = model_class(name)
    return kind(spec, parse(kind.config_type, {**TINY_MODELS[name], **(changes or {})}, name))


def tiny_training(**changes: Any) -> dict[str, Any]:
    """models.<model>.<profile>.training of a run that takes no time."""
    values: dict[str, Any] = {
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.01,
        "batch_size": 8,
        "max_steps": 12,
        "max_seconds": None,
        "warmup_fraction": 0.1,
        "decay_fraction": 0.4,
        "gradient_clip": 1.0,
        "ema_decay": 0.9,
        "horizontal_flip": True,
        "precision": "float32",
        "compile": False,
        "channels_last": False,
        "validate_every": 5,
        "num_validation_images": 20,
        "validation_batch_size": 50,
    }
    if "muon_learning_rate" not in changes and (values | changes)["optimizer"] == "muon":
        values["muon_learning_rate"] = 0.01
    return values | changes
