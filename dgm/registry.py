"""The table of models: registry key = file name in dgm/models = key in params.yaml = item of dvc.yaml's matrix."""

from __future__ import annotations

import importlib

from dgm.config.parse import ConfigError, shown, suggestion
from dgm.model_api.contracts import Model

MODELS: dict[str, str] = {
    "uniform": "dgm.models.uniform:Uniform",
    "nice": "dgm.models.nice:NICE",
    "real_nvp": "dgm.models.real_nvp:RealNVP",
    "vae": "dgm.models.vae.model:VAE",
    "vae_iaf": "dgm.models.vae_iaf.model:VAEIAF",
    "draw": "dgm.models.draw.model:DRAW",
    "conv_draw": "dgm.models.conv_draw:ConvDRAW",
    "histogram_per_channel": "dgm.models.histogram_per_channel:HistogramPerChannel",
    "histogram_left": "dgm.models.histogram_left:HistogramLeft",
    "ppca": "dgm.models.ppca:PPCA",
    "deep_gmm": "dgm.models.deep_gmm:DeepGMM",
    "mixture_of_gaussians": "dgm.models.mixture_of_gaussians:MixtureOfGaussians",
    "multivariate_gaussian": "dgm.models.multivariate_gaussian:MultivariateGaussian",
    "ridge_autoregressive": "dgm.models.ridge_autoregressive:RidgeAutoregressive",
    "made": "dgm.models.made.model:MADE",
    "wavenet": "dgm.models.wavenet.model:WaveNet",
    "char_rnn": "dgm.models.char_rnn.model:CharRNN",
    "pixelcnn": "dgm.models.pixelcnn:PixelCNN",
    "pixelcnn_pp": "dgm.models.pixelcnn_pp.model:PixelCNNpp",
    "gated_pixelcnn": "dgm.models.gated_pixelcnn:GatedPixelCNN",
    "hourglass": "dgm.models.hourglass.model:Hourglass",
    "row_lstm": "dgm.models.row_lstm.model:RowLSTM",
    "diagonal_bilstm": "dgm.models.diagonal_bilstm:DiagonalBiLSTM",
    "ride": "dgm.models.ride.model:RIDE",
    "neighbourhood": "dgm.models.neighbourhood.model:Neighbourhood",
    "deep_diffusion": "dgm.models.deep_diffusion.model:DeepDiffusion",
}

# Models that are scored with less noise than they are trained with -> a subclass with the same weights, for scoring.
SCORED: dict[str, str] = {"deep_diffusion": "dgm.models.deep_diffusion.scoring:ScoredDeepDiffusion"}


def model_class(name: str) -> type[Model]:
    """Raises: ConfigError if no such model is registered."""
    if name not in MODELS:
        raise ConfigError(f"unknown model {shown(name)}{suggestion(name, MODELS)}")
    return _imported(MODELS[name])


def scored_class(name: str) -> type[Model]:
    """The class that scores images with trained weights. Raises: ConfigError if no such model is registered."""
    return _imported(SCORED[name]) if name in SCORED else model_class(name)


def _imported(place: str) -> type[Model]:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
