"""MADE: one masked perceptron gives every conditional at once; here on pixels, with mixtures of discretized logistics.

Source: Germain, Gregor, Murray & Larochelle (2015), arXiv 1502.03509: masks (section 3), the direct link, other
orders and several masks (section 4). The paper models binary digits and has no CIFAR-10 figure.
Differs: the head (the paper's is Bernoulli); an ensemble averages the joint probabilities of its masks, which is a
valid distribution, where averaged logits are not; the direct link changes the means only, is measured in units of the
residual scale and starts as a linear predictor (see `MADE.prepare`).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import MIN_LOG_SCALE, LogisticMixture
from dgm.distributions.logistic_mixture_pmf import logistic_mixture_log_pmf
from dgm.distributions.precision import at_least_float32
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import Objective, TrainedAutoregressiveModel
from dgm.models.made.autoregressive_mask import draw_degrees, may_read, may_read_strictly, ranks_of
from dgm.models.made.causal_regression import causal_regression
from dgm.models.made.masked_stepper import LinkStepper, MaskedStepper
from dgm.nets.layer_list import LayerList
from dgm.nets.sequence import from_sequence, in_raster_order, to_sequence
from dgm.seeds import generator_for, number_below
from dgm.types import Images, ImageSpec

INITIAL_RESIDUAL_SCALE = 0.05  # logistic scale in [-1, 1] units, before prepare has measured it
LOG_SCALE_SPREAD = (-1.5, 0.5)  # first and last component, relative to the residual scale
REGRESSION_RIDGE = 1e-4
SCALE_OF_UNIT_LOGISTIC = math.sqrt(3) / math.pi  # a logistic of this scale has standard deviation 1


class MADEConfig(Config):
    """ordering: raster RGB, one random order, or an order for each mask.

    num_masks: hidden connections (and orders, if order_agnostic) to draw from in training. ensemble_size: how many of
    them are averaged in scoring. mask_seed: all masks derive from it, and are stored with the weights.
    regression_radius: pixels around each one in the linear start of the direct link; 0 copies the left neighbour.
    """

    ordering: Literal["natural", "random", "order_agnostic"]
    hidden_sizes: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]
    num_components: int = Field(gt=0)
    num_masks: int = Field(gt=0)
    ensemble_size: int = Field(gt=0)
    mask_seed: int = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    regression_radius: int = Field(ge=0)
    num_regression_images: int = Field(gt=0)


class MADE(TrainedAutoregressiveModel[MADEConfig]):
    """The mixture, with equal weights, of the distributions of `ensemble_size` masks.

    An ensemble over several orders has a likelihood and no conditionals: no one order serves all members, so it
    refuses to list them or to sample (`order`).
    """

    config_type = MADEConfig
    hot_method = "log_prob_of_mask"

    def __init__(self, spec: ImageSpec, config: MADEConfig) -> None:
        super().__init__(spec, config)
        if config.ensemble_size > config.num_masks:
            raise ValueError(f"ensemble_size {config.ensemble_size} is more than num_masks {config.num_masks}")
        num_inputs, sizes = spec.num_subpixels, config.hidden_sizes
        ranks, degrees = zip(*(self._draw_mask(mask) for mask in range(config.num_masks)), strict=True)
        self.ranks = nn.Buffer(torch.stack(ranks))  # of every input in the order of each mask, (masks, D)
        for layer in range(len(sizes)):
            self.register_buffer(f"degrees_{layer}", torch.stack([of_mask[layer] for of_mask in degrees]))
        # the unit of means and scales, (D,)
        self.residual_scale = nn.Buffer(torch.full((num_inputs,), INITIAL_RESIDUAL_SCALE))
        self.hidden = LayerList(nn.Linear(i, o) for i, o in zip([num_inputs, *sizes[:-1]], sizes, strict=True))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(sizes[-1], num_inputs * 3 * config.num_components)
        self.head_direct = nn.Linear(num_inputs, num_inputs)
        self._initialise()

    def _draw_mask(self, mask: int) -> tuple[Tensor, list[Tensor]]:
        """Ranks of the inputs and degrees of the hidden layers of one mask."""
        num_inputs, config = self.spec.num_subpixels, self.config
        order = torch.arange(num_inputs, device="cpu")
        if config.ordering != "natural":
            of_order = mask if config.ordering == "order_agnostic" else 0
            order = torch.randperm(num_inputs, generator=generator_for(config.mask_seed, 0, of_order), device="cpu")
        degrees = draw_degrees(num_inputs, config.hidden_sizes, generator_for(config.mask_seed, 1, mask))
        return ranks_of(order), degrees

    def _initialise(self) -> None:
        """Scale mixtures around the left neighbour; the hidden units have no effect at first."""
        num_inputs, channels, components = self.spec.num_subpixels, self.spec.channels, self.config.num_components
        nn.init.zeros_(self.head.weight)
        bias = torch.zeros(num_inputs, 3, components)
        first, last = LOG_SCALE_SPREAD
        bias[:, 2] = torch.linspace(first, last, components) if components > 1 else torch.zeros(1)
        self.head.bias.data.copy_(bias.flatten())
        position = torch.arange(num_inputs)
        has_left = position % (channels * self.spec.width) >= channels
        copy = torch.diag(has_left[channels:].to(bias.dtype), diagonal=-channels)
        self._set_direct(copy, torch.zeros(num_inputs))

    @torch.no_grad()
    def _set_direct(self, weights: Tensor, intercepts: Tensor) -> None:
        """Stores a linear predictor in [-1, 1] units in the link's own units."""
        scale = self.residual_scale
        self.head_direct.weight.copy_(weights * math.sqrt(self.spec.num_subpixels) / scale.unsqueeze(1))
        self.head_direct.bias.copy_(intercepts / scale)

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Starts the direct link as the least-squares predictor from earlier sub-pixels nearby, and measures its scale.

        It is a start of the model's own weights, of which training may move every one; before step 0 the model is
        then a linear autoregression. With an order for each mask no one predictor is causal, so the copy stays.
        """
        config = self.config
        if config.regression_radius == 0 or config.ordering == "order_agnostic":
            return
        chosen = torch.randperm(len(images), generator=generator, device=generator.device)
        values = in_raster_order(images[chosen[: config.num_regression_images].to(images.device)])
        x = unit_from_levels(values, self.spec.levels, self.residual_scale.dtype)
        weights, intercepts = causal_regression(x, self.ranks[0], self.spec, config.regression_radius, REGRESSION_RIDGE)
        deviation = (x - torch.addmm(intercepts, x, weights.T)).square().mean(dim=0).sqrt()
        half_bin = 1.0 / (self.spec.levels - 1)
        self.residual_scale.copy_(SCALE_OF_UNIT_LOGISTIC * deviation.clamp(min=half_bin))
        self._set_direct(weights, intercepts)

    def degrees(self, layer: int, mask: int) -> Tensor:
        """Degrees of a hidden layer's units under one mask, (H,)."""
        return getattr(self, f"degrees_{layer}")[mask]

    def masked_weight(self, layer: int, mask: int) -> Tensor:
        """Weight into a hidden layer, zero where its degrees forbid reading. Shapes: -> (H, inputs)."""
        below = self.ranks[mask] if layer == 0 else self.degrees(layer - 1, mask)
        return self.hidden[layer].weight * may_read(below, self.degrees(layer, mask))

    def num_parameters(self) -> int:
        """Those of the network, and the measured scale of each sub-pixel's residual."""
        return super().num_parameters() + self.residual_scale.numel()

    def idle_weights(self) -> dict[str, Tensor]:
        """What no mask of the ensemble lets through, on its own or because nothing reads the unit that it feeds."""
        acting = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in self.named_parameters()}
        has_weights = self.config.num_components > 1  # of a mixture of one, the logit is cancelled
        is_output = torch.ones(self.spec.num_subpixels, 3, self.config.num_components, dtype=torch.bool).to(self.device)
        is_output[:, 0] = has_weights
        for mask in range(self.config.ensemble_size):
            ranks = self.ranks[mask]
            reads = may_read_strictly(self.degrees(len(self.hidden) - 1, mask), ranks)
            acting["head.weight"] |= (reads[:, None, None] & is_output[..., None]).flatten(0, 2)
            acting["head_direct.weight"] |= may_read_strictly(ranks, ranks)
            is_read = reads.any(dim=0)
            for layer in reversed(range(len(self.hidden))):
                below = ranks if layer == 0 else self.degrees(layer - 1, mask)
                reads = may_read(below, self.degrees(layer, mask)) & is_read[:, None]
                acting[f"hidden.{layer}.weight"] |= reads
                acting[f"hidden.{layer}.bias"] |= is_read
                is_read = reads.any(dim=0)
        acting["head.bias"] |= is_output.flatten()
        acting["head_direct.bias"] |= True
        return {name: ~entries for name, entries in acting.items()}

    def mixture(self, outputs: Tensor, direct: Tensor, residual_scale: Tensor) -> LogisticMixture:
        """Shapes: outputs (..., 3 K), direct (...), residual_scale (...) -> one-channel mixtures of shape (...)."""
        logits, means, log_scales = at_least_float32(outputs).unflatten(-1, (3, -1)).unbind(dim=-2)
        scale = residual_scale.unsqueeze(-1)
        means = (means + direct.unsqueeze(-1)) * scale
        log_scales = (log_scales + scale.log()).clamp(min=MIN_LOG_SCALE)
        return LogisticMixture(
            log_weights=torch.log_softmax(logits, dim=-1),
            means=means.unsqueeze(-2),
            log_scales=log_scales.unsqueeze(-2),
            coefficients=means.new_zeros(*means.shape[:-1], 0, means.shape[-1]),
            levels=self.spec.levels,
        )

    def mixture_of_mask(self, values: Tensor, mask: int) -> LogisticMixture:
        """Every conditional under one mask. Shapes: (N, D) int64 in raster order -> mixtures of shape (N, D)."""
        num_inputs, ranks = self.spec.num_subpixels, self.ranks[mask]
        x = unit_from_levels(values, self.spec.levels, self.residual_scale.dtype)
        features = x
        for layer, linear in enumerate(self.hidden):
            features = self.dropout(F.relu(F.linear(features, self.masked_weight(layer, mask), linear.bias)))
        reads = may_read_strictly(self.degrees(len(self.hidden) - 1, mask), ranks)
        weight = (self.head.weight.unflatten(0, (num_inputs, -1)) * reads.unsqueeze(1)).flatten(0, 1)
        outputs = F.linear(features, weight, self.head.bias).unflatten(-1, (num_inputs, -1))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 cannot tell neighbouring levels apart
            weight = self.head_direct.weight * may_read_strictly(ranks, ranks)
            direct = torch.addmm(self.head_direct.bias, x, weight.T, alpha=1 / math.sqrt(num_inputs))
        return self.mixture(outputs, direct, self.residual_scale)

    def log_prob_of_mask(self, values: Tensor, mask: int) -> Tensor:
        """log P(image) under one mask. Shapes: (N, D) int64 -> (N,) float64."""
        return self.mixture_of_mask(values, mask).log_prob(values.unsqueeze(-1)).sum(dim=1, dtype=torch.float64)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """Nats under one mask drawn from all, as in the paper; scoring averages the ensemble's joints."""
        mask = number_below(self.config.num_masks, generator)
        nats = self.log_prob_of_mask(to_sequence(images), mask)
        return Objective(loss=-nats, nats=nats.detach())

    def log_prob(self, images: Images) -> Tensor:
        values, size = to_sequence(images), self.config.ensemble_size
        members = torch.stack([self.log_prob_of_mask(values, mask) for mask in range(size)])
        return members.logsumexp(dim=0) - math.log(size)

    def log_pmf(self, images: Images) -> Tensor:
        """Conditionals of the mixture of joints: each mask counts by what it gave to the sub-pixels before."""
        values, order = to_sequence(images), self.order_in_raster()
        members = torch.stack(
            [
                self.mixture_of_mask(values, mask).log_pmf(values.unsqueeze(-1)).squeeze(-2)
                for mask in range(self.config.ensemble_size)
            ]
        )
        chosen = members.gather(-1, values.expand(len(members), -1, -1).unsqueeze(-1)).squeeze(-1)[..., order]
        before = (chosen.cumsum(dim=-1) - chosen)[..., self.ranks[0]]
        log_weights = torch.log_softmax(before, dim=0)
        return from_sequence(torch.logsumexp(log_weights.unsqueeze(-1) + members, dim=0), self.spec)

    def order_in_raster(self) -> Tensor:
        """Position in the order -> raster index. Raises: ValueError for an ensemble over several orders."""
        if self.config.ordering == "order_agnostic" and self.config.ensemble_size > 1:
            raise ValueError("an ensemble over several orders has no conditionals: set ensemble_size to 1")
        return torch.argsort(self.ranks[0])

    def order(self) -> Tensor:
        raster = self.order_in_raster()
        return super().order().to(raster.device)[raster]

    def conditionals(self, num_images: int) -> Conditionals:
        return MADEConditionals(self, num_images)


class MADEConditionals(Conditionals):
    """Every hidden unit is computed once, and of the outputs only the next ones."""

    @torch.no_grad()
    def __init__(self, model: MADE, num_images: int) -> None:
        self.model = model
        masks, layers, order = range(model.config.ensemble_size), range(len(model.hidden)), model.order_in_raster()
        self.raster_order = order.tolist()
        self.x = model.residual_scale.new_zeros(len(order), num_images)  # what is not yet known reads as nothing
        self.link = LinkStepper(model.head_direct, order, self.x)
        self.members = [
            MaskedStepper(list(model.hidden), model.head, [model.degrees(layer, mask) for layer in layers], self.x)
            for mask in masks
        ]
        self.joint = self.x.new_zeros(len(self.members), num_images)  # log P(values so far) under each mask
        self.position = 0
        self._advance()

    @torch.no_grad()
    def log_pmf(self) -> Tensor:
        log_weights, levels = torch.log_softmax(self.joint, dim=0), self.model.spec.levels
        members = [
            log_weight.unsqueeze(-1)
            + logistic_mixture_log_pmf(mixture.log_weights, mixture.means[:, 0], mixture.log_scales[:, 0], levels)
            for log_weight, mixture in zip(log_weights, self.mixtures, strict=True)
        ]
        return members[0] if len(members) == 1 else torch.logsumexp(torch.stack(members), dim=0)

    @torch.no_grad()
    def push(self, values: Tensor) -> None:
        self.x[self.raster_order[self.position]] = unit_from_levels(values, self.model.spec.levels, self.x.dtype)
        if len(self.members) > 1:
            self.joint += torch.stack([mixture.log_prob(values.unsqueeze(1)) for mixture in self.mixtures])
        self.position += 1
        if self.position < len(self.raster_order):
            for member in self.members:
                member.advance(self.position)
            self._advance()

    def _advance(self) -> None:
        """The mixture of the next sub-pixel under each mask."""
        model, raster = self.model, self.raster_order[self.position]
        direct, scale = self.link.at(self.position), model.residual_scale[raster]
        self.mixtures = [model.mixture(member.outputs(raster), direct, scale) for member in self.members]
