"""The reverse network: its published size, what its bumps weigh, and that it begins at zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgm.models.deep_diffusion.network import ReverseNetwork, ReverseNetworkConfig, temporal_bumps
from dgm.types import CIFAR10, ImageSpec

SPEC = ImageSpec(2, 4, 6, levels=4)


def config_with(**changes: Any) -> ReverseNetworkConfig:
    values: dict[str, Any] = {
        "block": 1,
        "num_conv_layers": 2,
        "num_conv_features": 5,
        "num_dense_layers": 2,
        "num_dense_features": 4,
        "num_dense_outputs": 3,
        "num_head_layers": 1,
        "num_head_features": 6,
        "num_bumps": 3,
    }
    return ReverseNetworkConfig.model_validate(values | changes)


def random_network(**changes: Any) -> ReverseNetwork:
    torch.manual_seed(0)
    network = ReverseNetwork(SPEC, 2, 4, config_with(**changes)).double()
    torch.nn.init.normal_(network.head.weight)
    return network


def test_the_published_network_has_as_many_parameters_as_the_authors_code() -> None:
    published = config_with(
        num_conv_layers=6,
        num_conv_features=100,
        num_dense_layers=5,
        num_dense_features=1000,
        num_dense_outputs=5,
        num_head_layers=3,
        num_head_features=100,
        num_bumps=10,
    )
    with torch.device("meta"):
        network = ReverseNetwork(CIFAR10, 3, 6, published)
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_692_280


def test_bumps_sum_to_one_and_peak_at_equal_distances() -> None:
    bumps = temporal_bumps(1000, 10)
    assert torch.allclose(bumps.sum(dim=1), torch.ones(1000, dtype=torch.float64))
    assert bumps.argmax(dim=0).tolist() == pytest.approx([round(111 * i) for i in range(10)], abs=6)
    # one spacing off a centre is two standard deviations: exp(-2) of the weight there
    assert float(bumps[333, 2] / bumps[333, 3]) == pytest.approx(0.1353, rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"block": 2}, {"num_dense_features": 0}])
def test_its_output_is_zero_at_first_and_a_map_of_the_image(changes: dict[str, Any]) -> None:
    x, bumps = torch.randn(3, 2, 4, 6).double(), temporal_bumps(5, 3)[:3]
    assert not ReverseNetwork(SPEC, 2, 4, config_with(**changes)).double()(x, bumps).any()
    assert random_network(**changes)(x, bumps).shape == (3, 4, 4, 6)


def test_a_step_reads_the_outputs_of_its_bumps() -> None:
    network, x = random_network(), torch.randn(3, 2, 4, 6).double()
    single = torch.stack([network(x, one.expand(3, 3)) for one in torch.eye(3).double()])
    weights = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]]).double()
    assert torch.allclose(network(x, weights), torch.einsum("nj,jnchw->nchw", weights, single))
    assert not torch.allclose(single[0], single[1])


def test_the_dense_stack_sees_the_whole_image_and_the_convolutions_what_is_near() -> None:
    x, bumps = torch.randn(1, 2, 4, 6).double(), torch.ones(1, 3).double()
    other = x.clone()
    other[:, :, 0, 0] += 1
    for num_dense, is_seen in [(4, True), (0, False)]:
        network = random_network(num_dense_features=num_dense)
        assert bool((network(x, bumps) != network(other, bumps))[0, :, 3, 5].all()) == is_seen


def test_blocks_that_do_not_tile_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        random_network(block=4)
