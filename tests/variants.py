"""Named variants of the tiny models: other kernels, heads, orders, starts and image shapes, for the contract tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dgm.model_api.contracts import AutoregressiveModel, GradientTrained, Model
from dgm.registry import model_class
from dgm.types import ImageSpec
from tests.tiny import ENUMERABLE, PLAIN, SMALL, TINY_MODELS, tiny_model

TWO_BY_TWO = ImageSpec(channels=3, height=2, width=2, levels=2)
TWO_CHANNELS = ImageSpec(channels=2, height=2, width=2, levels=3)
OBLONG = ImageSpec(channels=3, height=4, width=5, levels=4)


@dataclass(frozen=True)
class Variant:
    """One configuration of a model that the contract tests run over.

    changes: to TINY_MODELS. enumerable: the size at which every image is scored, None: no such size is small enough.
    """

    model: str
    enumerable: ImageSpec | None = ENUMERABLE
    small: ImageSpec = SMALL
    changes: Mapping[str, Any] = field(default_factory=dict)

    def build(self, spec: ImageSpec) -> Model:
        """As tests.tiny.tiny_model."""
        return tiny_model(self.model, spec, changes=self.changes)


VARIANTS: dict[str, Variant] = {name: Variant(name) for name in TINY_MODELS} | {
    "histogram_per_channel-oblong": Variant("histogram_per_channel", TWO_CHANNELS, OBLONG),
    "histogram_left-oblong": Variant("histogram_left", TWO_CHANNELS, OBLONG),
    "ridge_autoregressive-oblong": Variant("ridge_autoregressive", TWO_CHANNELS, OBLONG, {"ridge": 1e-6}),
    "real_nvp-batch_norm": Variant("real_nvp", changes={"norm": "batch_norm"}),
    "vae_iaf-plain": Variant(
        "vae_iaf", changes={"num_layers": 3, "stem_stride": 4, "has_subpixel_scale": False, "has_linear_start": False}
    ),
    "vae_iaf-deep": Variant("vae_iaf", changes={"num_layers": 3, "num_latents": 4, "stem_stride": 4}),
    "draw-plain": Variant("draw", changes={"has_linear_start": False, "write_size": 3}),
    "draw-one_scale": Variant("draw", changes={"has_subpixel_scale": False}),
    "conv_draw-plain": Variant("conv_draw", changes={"has_linear_start": False, "num_steps": 3}),
    "conv_draw-three_steps": Variant("conv_draw", changes={"num_steps": 3}),
    **{
        f"made-{name}": Variant("made", ImageSpec(2, 1, 2, 4), ImageSpec(2, 3, 3, 5), changes)
        for name, changes in {
            "natural": {"ordering": "natural", "hidden_sizes": [8], "num_masks": 1, "ensemble_size": 1},
            "deep": {"hidden_sizes": [8, 7, 6], "num_masks": 1, "ensemble_size": 1},
            "order_agnostic": {"ordering": "order_agnostic", "hidden_sizes": [8], "ensemble_size": 1},
            "natural_ensemble": {"ordering": "natural", "hidden_sizes": [8], "num_components": 1, "ensemble_size": 3},
            "random_ensemble": {"hidden_sizes": [8], "num_masks": 2},
        }.items()
    },
    "wavenet-long": Variant(
        "wavenet",
        ImageSpec(2, 2, 2, 2),
        ImageSpec(2, 3, 4, 5),
        {"pixel_dilations": [1, 2, 4, 8], "row_dilations": [1, 2, 4, 8]},  # some queues are longer than the image
    ),
    "char_rnn-plain": Variant("char_rnn", ENUMERABLE, ImageSpec(3, 4, 2, 5), {"has_position_features": False}),
    "char_rnn-whole": Variant("char_rnn", ENUMERABLE, ImageSpec(3, 4, 2, 5), {"segment_rows": 0}),
    **{
        f"{name}-plain": Variant(name, TWO_BY_TWO, changes=PLAIN)
        for name in ("pixelcnn", "gated_pixelcnn", "row_lstm", "diagonal_bilstm", "wavenet")
    },
    "pixelcnn-oblong": Variant("pixelcnn", ENUMERABLE, OBLONG, {"num_features": 5}),
    "pixelcnn-grey": Variant("pixelcnn", ImageSpec(1, 2, 3, 2), ImageSpec(1, 3, 3, 2)),
    "gated_pixelcnn-oblong": Variant("gated_pixelcnn", ENUMERABLE, OBLONG, {"num_features": 5}),
    "gated_pixelcnn-grey": Variant("gated_pixelcnn", ImageSpec(1, 2, 3, 2), ImageSpec(1, 3, 3, 2)),
    "gated_pixelcnn-wide": Variant("gated_pixelcnn", TWO_BY_TWO, OBLONG, {"kernel_size": 5}),
    "pixelcnn_pp": Variant("pixelcnn_pp", TWO_BY_TWO),
    "pixelcnn_pp-row": Variant("pixelcnn_pp", ENUMERABLE, ImageSpec(2, 3, 5, 8), {"num_stages": 1}),
    "pixelcnn_pp-column": Variant(
        "pixelcnn_pp", ImageSpec(2, 2, 1, 3), OBLONG, {"num_stages": 1, "weight_norm": False}
    ),
    "pixelcnn_pp-grey": Variant("pixelcnn_pp", ImageSpec(1, 2, 2, 3), ImageSpec(1, 6, 4, 4), {"num_resnets": 2}),
    "pixelcnn_pp-3_stages": Variant("pixelcnn_pp", None, ImageSpec(3, 4, 4, 8), {"num_stages": 3}),
    "pixelcnn_pp-3_deep": Variant("pixelcnn_pp", None, ImageSpec(3, 4, 8, 8), {"num_stages": 3, "num_resnets": 2}),
    "hourglass-oblong": Variant("hourglass", TWO_CHANNELS, OBLONG, {"reach": 0, "num_heads": 1}),
    "hourglass-blocks": Variant(
        "hourglass", TWO_BY_TWO, ImageSpec(3, 6, 5, 8), {"shortening": 3, "num_middle_layers": 2, "num_blocks": 1}
    ),
    "row_lstm-oblong": Variant("row_lstm", TWO_BY_TWO, OBLONG),
    "row_lstm-even": Variant("row_lstm", ENUMERABLE, OBLONG, {"num_hidden": 6}),
    "row_lstm-mixture": Variant(
        "row_lstm", TWO_BY_TWO, OBLONG, {"num_hidden": 6, "num_mixtures": 3, "num_start_images": 0}
    ),
    "diagonal_bilstm-oblong": Variant("diagonal_bilstm", TWO_BY_TWO, OBLONG, {"num_layers": 1}),
    "diagonal_bilstm-even": Variant("diagonal_bilstm", TWO_BY_TWO, OBLONG, {"num_hidden": 6}),
}

AUTOREGRESSIVE = [
    name for name, variant in VARIANTS.items() if issubclass(model_class(variant.model), AutoregressiveModel)
]
TRAINED_VARIANTS = [
    name for name, variant in VARIANTS.items() if issubclass(model_class(variant.model), GradientTrained)
]
ENUMERATED = [name for name in AUTOREGRESSIVE if VARIANTS[name].enumerable is not None]
