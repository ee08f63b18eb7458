"""Deep Gaussian mixture model: whitening, then blocks that each choose one of K linear transforms, chosen jointly.

x = mean + whitening^-1 (A_{b, k_b} z_b + m_{b, k_b})_b, z ~ N(0, I): a path of choices (k_b) selects the linear
transforms, so the density is a mixture of Gaussians with K^blocks components. The choices depend on each other through
a tree of hidden states over the image, and the sum over all paths is exact.
Source: van den Oord & Schrauwen (2014), "Factoring variations in natural images with deep Gaussian mixture models"
(NIPS), and van den Oord & Dambre (2015), "Locally-connected transformations for deep GMMs" (ICML deep learning
workshop), to which the published 4.00 is attributed.
Differs: the workshop's sizes are not known to us. Transforms are fitted by soft EM in closed form, first shared by all
positions and then per position, instead of hard EM with gradient steps; the paths' prior is the tree, not independent.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dgm.config.parse import Config
from dgm.dequantization import dequantize
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import image_moments, zca
from dgm.distributions.gaussian_mixture import (
    WeightedMoments,
    component_log_densities,
    estimate,
    pair_products,
    posterior,
    weighted_moments,
)
from dgm.distributions.hidden_tree import TreeShape, sample_tree, tree_log_prob, tree_posterior
from dgm.model_api.contracts import DensityModel, Fitted
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec

CHUNK = 1024  # images or blocks that are worked on at once


class DeepGMMConfig(Config):
    """block_size: side of a block in pixels. num_components: K, transforms per block.
    tree_states: hidden states of the blocks' parents, grandparents, ..., root; empty for independent blocks.
    num_fit_images: the first ones; null for all. has_mirrored_whitening: the whitening is also that of their mirror
    images, so that it fits them less closely and others better.
    num_shared_iterations: of EM with one mixture for all positions, on num_shared_images; the others refine each
    position and the tree on all.
    shared_pseudo_counts: points with mean 0 and covariance I added to each shared component, so that none collapses.
    position_pseudo_counts: points of the shared component added to each position's.
    tree_pseudo_counts: added to the expected count of every entry of the tree's tables."""

    block_size: int = Field(ge=1)
    num_components: int = Field(ge=1)
    tree_states: list[int]
    num_fit_images: int | None = Field(ge=1)
    has_mirrored_whitening: bool
    num_shared_images: int = Field(ge=1)
    num_shared_iterations: int = Field(ge=0)
    shared_pseudo_counts: float = Field(ge=0)
    position_pseudo_counts: float = Field(ge=0)
    tree_pseudo_counts: float = Field(gt=0)


class DeepGMM(Fitted[DeepGMMConfig], DensityModel[DeepGMMConfig]):
    """p(x) = |det whitening| sum over (k_b) of P(k) product over blocks of N(block_b; mean_{b, k_b}, covariance)."""

    config_type = DeepGMMConfig

    def __init__(self, spec: ImageSpec, config: DeepGMMConfig) -> None:
        super().__init__(spec, config)
        side, K = config.block_size, config.num_components
        if spec.height % side or spec.width % side:
            raise ValueError(f"block_size: {side} must divide the height {spec.height} and the width {spec.width}")
        if any(states < 1 for states in config.tree_states):
            raise ValueError("tree_states must be positive")
        self.tree = TreeShape(spec.height // side, spec.width // side, (K, *config.tree_states))
        self.num_blocks, self.block_dim = self.tree.num_nodes(0), spec.channels * side * side
        dim, d = spec.num_subpixels, self.block_dim
        eye = torch.eye(d, dtype=torch.float64)
        self.mean = nn.Buffer(torch.full((dim,), spec.levels / 2, dtype=torch.float64))
        self.whitening = nn.Buffer(torch.eye(dim, dtype=torch.float64))
        self.log_determinant = nn.Buffer(torch.zeros((), dtype=torch.float64))
        self.noise_seed = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.shared_log_weights = nn.Buffer(torch.zeros(K, dtype=torch.float64))
        self.shared_means = nn.Buffer(torch.zeros(K, d, dtype=torch.float64))
        self.shared_covariances = nn.Buffer(eye.repeat(K, 1, 1))
        self.block_means = nn.Buffer(torch.zeros(self.num_blocks, K, d, dtype=torch.float64))
        self.inverse_factors = nn.Buffer(eye.repeat(self.num_blocks, K, 1, 1))
        for level in range(len(self.tree.states)):
            nodes, parents, states = self.tree.table_shape(level)
            table = torch.full((nodes, parents, states), 1 / states, dtype=torch.float64).log()
            self.register_buffer(f"log_table_{level}", table)
        self._cached_blocks: Tensor | None = None  # float32 (blocks, d, N); computed again after a resume

    @property
    def log_tables(self) -> list[Tensor]:
        return [getattr(self, f"log_table_{level}") for level in range(len(self.tree.states))]

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        """The shared iterations look at fewer."""
        images = images[: self.config.num_fit_images]
        is_shared = iteration is not None and iteration < self.config.num_shared_iterations
        return images[: self.config.num_shared_images] if is_shared else images

    @torch.no_grad()
    def start(self, images: Images, generator: torch.Generator) -> None:
        images = self.images_used(images)
        mean, covariance = image_moments(images, is_mirrored=self.config.has_mirrored_whitening)
        whitening, log_determinant = zca(covariance, "the covariance of the training images")
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        self.log_determinant.copy_(log_determinant)
        self.noise_seed.copy_(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._start_components(self._blocks(images[: self.config.num_shared_images]))

    @torch.no_grad()
    def iterate(self, images: Images, iteration: int, generator: torch.Generator) -> float:
        blocks = self._blocks(self.images_used(images, iteration))
        if iteration < self.config.num_shared_iterations:
            nats = self._iterate_shared(blocks)
        else:
            if iteration == self.config.num_shared_iterations:
                self._start_tree(blocks)
            nats = self._iterate_positions(blocks)
        return nats + float(self.log_determinant)

    def finish(self, images: Images) -> None:
        self._cached_blocks = None

    def _start_components(self, blocks: Tensor) -> None:
        """One component for each quantile of the blocks' energy: contrast is what varies most."""
        points = blocks.transpose(0, 1).flatten(1)
        order = points.square().sum(dim=0).argsort(stable=True)
        parts = [points[:, part].double() for part in order.tensor_split(self.config.num_components)]
        moments = [weighted_moments(x, pair_products(x), torch.ones_like(x[:1])) for x in parts]
        self._update_shared(WeightedMoments.concatenated(moments))

    def _iterate_shared(self, blocks: Tensor) -> float:
        """One step of EM with independent blocks and one mixture for all positions."""
        inverse_factors, moments, nats = self.inverse_factors[0], [], 0.0
        for points in blocks:
            for x in points.split(CHUNK, dim=1):
                x = x.double()
                products = pair_products(x)
                joint = component_log_densities(x, products, self.shared_means, inverse_factors)
                joint += self.shared_log_weights.unsqueeze(1)
                shares, log_density = posterior(joint, dim=0)
                nats += float(log_density.sum())
                moments.append(weighted_moments(x, products, shares))
                moments = [WeightedMoments.total(moments)]
        self._update_shared(moments[0])
        return nats / blocks.shape[2]

    def _update_shared(self, moments: WeightedMoments) -> None:
        """Shared components, and each position's a copy of them with independent choices."""
        identity = torch.eye(self.block_dim, dtype=torch.float64, device=self.device)
        means, covariances, inverse_factors = estimate(
            moments, 0 * identity[0], identity, self.config.shared_pseudo_counts, "the covariance of a shared component"
        )
        weights = moments.counts + self.config.tree_pseudo_counts
        self.shared_log_weights.copy_((weights / weights.sum()).log())
        self.shared_means.copy_(means)
        self.shared_covariances.copy_(covariances)
        self.block_means.copy_(means.expand_as(self.block_means))
        self.inverse_factors.copy_(inverse_factors.expand_as(self.inverse_factors))
        self.log_tables[0].copy_(self.shared_log_weights.expand_as(self.log_tables[0]))

    def _evidence(self, blocks: Tensor) -> Tensor:
        """log N(block; component) of every block and component. Shapes: float64 (blocks, d, N) -> (N, blocks, K)."""
        parts = [
            component_log_densities(x, pair_products(x), self.block_means[b], self.inverse_factors[b])
            for b, x in enumerate(blocks)
        ]
        return torch.stack(parts).permute(2, 0, 1)

    def _start_tree(self, blocks: Tensor) -> None:
        """Tables of counts after ranking each node by the mean log-volume of its cells' likeliest components."""
        log_volume = -self.inverse_factors[0].diagonal(dim1=1, dim2=2).log().sum(dim=1)
        rank = log_volume.argsort().argsort()
        chosen = []
        for chunk in blocks.split(CHUNK, dim=2):
            joint = self._evidence(chunk.double()) + self.shared_log_weights
            chosen.append(joint.argmax(dim=2))
        states = torch.cat(chosen)  # (N, cells)
        contrast = rank[states].double()
        for level, table in enumerate(self.log_tables):
            parents = self.tree.parents(level).to(self.device)
            _, num_parent_states, num_states = table.shape
            num_parents = self.tree.num_nodes(level + 1) if level + 1 < len(self.log_tables) else 1
            contrast = torch.zeros(len(contrast), num_parents, dtype=torch.float64, device=self.device).index_add_(
                1, parents, contrast
            )
            ranks = contrast.argsort(dim=0, stable=True).argsort(dim=0, stable=True)
            parent_states = ranks * num_parent_states // len(contrast)
            for node in range(len(table)):
                codes = parent_states[:, parents[node]] * num_states + states[:, node]
                counts = codes.bincount(minlength=num_parent_states * num_states).view(num_parent_states, num_states)
                table[node] = self._log_table(counts.double())
            states = parent_states

    def _log_table(self, counts: Tensor) -> Tensor:
        smoothed = counts + self.config.tree_pseudo_counts
        return (smoothed / smoothed.sum(dim=-1, keepdim=True)).log()

    def _iterate_positions(self, blocks: Tensor) -> float:
        """One step of EM over each position's components and the tree."""
        collected: list[list[WeightedMoments]] = [[] for _ in range(self.num_blocks)]
        counts = [torch.zeros_like(table) for table in self.log_tables]
        nats = 0.0
        for chunk in blocks.split(CHUNK, dim=2):
            x = chunk.double()
            log_probs, shares, chunk_counts = tree_posterior(self.tree, self._evidence(x), self.log_tables)
            nats += float(log_probs.sum())
            counts = [total + part for total, part in zip(counts, chunk_counts, strict=True)]
            for b, moments in enumerate(collected):
                moments.append(weighted_moments(x[b], pair_products(x[b]), shares[:, b].T))
                moments[:] = [WeightedMoments.total(moments)]
        for table, count in zip(self.log_tables, counts, strict=True):
            table.copy_(self._log_table(count))
        for b, (moments,) in enumerate(collected):
            self.block_means[b], _, self.inverse_factors[b] = estimate(
                moments,
                self.shared_means,
                self.shared_covariances,
                self.config.position_pseudo_counts,
                f"a covariance of block {b}",
            )
        return nats / blocks.shape[2]

    def _whitened_blocks(self, x: Tensor) -> Tensor:
        """Shapes: grey levels (N, C, H, W) -> float64 (blocks, d, N)."""
        y = (x.flatten(1).double() - self.mean) @ self.whitening.T
        side, (channels, height, width) = self.config.block_size, self.spec.shape
        y = y.view(len(x), channels, height // side, side, width // side, side)
        return y.permute(2, 4, 1, 3, 5, 0).reshape(self.num_blocks, self.block_dim, len(x))

    def _from_blocks(self, blocks: Tensor) -> Tensor:
        """Inverse of _whitened_blocks. Shapes: (blocks, d, N) -> (N, C, H, W)."""
        side, (channels, height, width) = self.config.block_size, self.spec.shape
        y = blocks.view(height // side, width // side, channels, side, side, -1)
        y = y.permute(5, 2, 0, 3, 1, 4).reshape(blocks.shape[2], -1)
        x = torch.linalg.solve(self.whitening, y.T).T + self.mean
        return x.view(-1, *self.spec.shape)

    def _blocks(self, images: Images) -> Tensor:
        """Whitened blocks of images with one draw of dequantization noise, always the same; float32 (blocks, d, N)."""
        if self._cached_blocks is None or self._cached_blocks.shape[2] != len(images):
            blocks = torch.empty(self.num_blocks, self.block_dim, len(images), device=images.device)
            for first in range(0, len(images), CHUNK):
                generator = generator_for(int(self.noise_seed), first, device=images.device)
                x = dequantize(images[first : first + CHUNK], generator, dtype=torch.float64)
                blocks[:, :, first : first + CHUNK] = self._whitened_blocks(x)
            self._cached_blocks = blocks
        return self._cached_blocks

    def log_density(self, x: Tensor) -> Tensor:
        evidence = self._evidence(self._whitened_blocks(x))
        return tree_log_prob(self.tree, evidence, self.log_tables) + self.log_determinant

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        tables = self.log_tables
        if temperature == 0:  # the most probable state given each parent's
            tables = [F.one_hot(table.argmax(dim=-1), table.shape[-1]).to(table).log() for table in tables]
        chosen = sample_tree(self.tree, tables, num_images, generator).T  # (blocks, N)
        shape = (*chosen.shape, self.block_dim, 1)
        noise = temperature * standard_noise(shape, generator, self.mean, drawn_in=torch.float64)
        blocks = []
        for b, states in enumerate(chosen):
            deviation = torch.linalg.solve_triangular(self.inverse_factors[b][states], noise[b], upper=False)
            blocks.append((self.block_means[b][states] + deviation.squeeze(-1)).T)
        return self._from_blocks(torch.stack(blocks))

    def num_parameters(self) -> int:
        dim, d = self.spec.num_subpixels, self.block_dim
        per_component = d + d * (d + 1) // 2
        tables = sum(
            nodes * parents * (states - 1)
            for nodes, parents, states in map(self.tree.table_shape, range(len(self.tree.states)))
        )
        return dim + dim * (dim + 1) // 2 + self.num_blocks * self.config.num_components * per_component + tables
