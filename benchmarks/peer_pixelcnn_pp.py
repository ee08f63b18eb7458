"""PixelCNN++ against the well-known PyTorch port (pclucas14/pixel-cnn-pp): seconds a step of training and of scoring.

Run from the project's root: python -m benchmarks.peer_pixelcnn_pp --peer FOLDER, the folder a checkout of the port that
runs under today's torch. One process, one thread, both networks of one size on the same images, their calls taking
turns, so that the ratios are of one machine at one time. Processor seconds, not those of the clock: others may work on
the machine. A call's time is the least of its repetitions. Prints and writes benchmarks/peer_pixelcnn_pp.md.

Neither has an optimizer here: a training step is the loss and its gradient.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.sampling_speed import cpu_name
from benchmarks.timed_training import training_arrays
from dgm.errors import StageError
from dgm.models.pixelcnn_pp.model import PixelCNNpp, PixelCNNppConfig
from dgm.runs.atomic import write_text
from dgm.types import CIFAR10, Images
from stages.cli import DATA, run_stage

BATCH_SIZE, NUM_MIXTURES = 16, 10
CONFIG = PixelCNNppConfig(  # dropout, weight normalisation and three stages are what the port always has
    num_filters=40,
    num_resnets=2,
    num_stages=3,
    num_mixtures=NUM_MIXTURES,
    dropout=0.5,
    weight_norm=True,
    num_init_images=0,
)
CONVOLUTIONS = ("aten::mkldnn_convolution", "aten::convolution_backward")
COLUMNS = ["Call", "Ours, s", "Port, s", "Port ÷ ours", "Convolutions", "Bound"]
PEER_MODULES = ("utils", "layers", "model")
REPORT = Path(__file__).parent / "peer_pixelcnn_pp.md"


def peer_network(folder: Path) -> tuple[nn.Module, Callable[..., Any]]:
    """The port's network and its loss. Raises: StageError if the folder is no checkout of it, or does not run."""
    if missing := [name for name in PEER_MODULES if not (folder / f"{name}.py").is_file()]:
        raise StageError(f"--peer {folder}: no {missing[0]}.py there; give a checkout of pclucas14/pixel-cnn-pp")
    sys.path.insert(0, str(folder.resolve()))
    try:
        peer = importlib.import_module("model")
        loss = importlib.import_module("utils").discretized_mix_logistic_loss
        network = peer.PixelCNN(
            nr_resnet=CONFIG.num_resnets, nr_filters=CONFIG.num_filters, nr_logistic_mix=NUM_MIXTURES
        )
    except (ImportError, AttributeError, TypeError) as error:
        raise StageError(f"--peer {folder}: {type(error).__name__}: {error}") from error
    return network, loss


def least_seconds(calls: dict[str, Callable[[], object]], num_repeats: int) -> dict[str, float]:
    """Processor seconds of each call, the least of some, all taking turns after one that does not count."""
    least = dict.fromkeys(calls, float("inf"))
    for repeat in range(num_repeats + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if repeat > 0:
                least[name] = min(least[name], time.process_time() - began)
    return least


def timed_calls(
    ours: PixelCNNpp, peer: nn.Module, loss: Callable[..., Any], images: Images
) -> dict[str, Callable[[], object]]:
    """One training step and one scoring without gradient of each network."""
    x = images.float() / 127.5 - 1

    def train(network: nn.Module, nats: Callable[[], Any]) -> None:
        network.train().zero_grad(set_to_none=True)
        nats().backward()

    def score(network: nn.Module, nats: Callable[[], Any]) -> None:
        network.eval()
        with torch.no_grad():
            nats()

    def our_nats() -> Any:
        return -ours.log_prob(images).sum()

    def peer_nats() -> Any:
        return loss(x, peer(x))

    return {
        "ours, training": lambda: train(ours, our_nats),
        "port, training": lambda: train(peer, peer_nats),
        "ours, scoring": lambda: score(ours, our_nats),
        "port, scoring": lambda: score(peer, peer_nats),
    }


def convolution_share(call: Callable[[], object]) -> float:
    """Of a call's time, what torch's convolutions take, forward and backward: no other code between them saves it."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    events = profiled.key_averages()
    of_convolutions = sum(event.self_cpu_time_total for event in events if event.key in CONVOLUTIONS)
    return of_convolutions / sum(event.self_cpu_time_total for event in events)


def report(seconds: dict[str, float], shares: dict[str, float], num_repeats: int) -> str:
    """What the output file says. shares: of our training and scoring, by convolutions."""
    rows = [
        [
            what,
            f"{seconds[f'ours, {what}']:.3f}",
            f"{seconds[f'port, {what}']:.3f}",
            f"{seconds[f'port, {what}'] / seconds[f'ours, {what}']:.2f}",
            f"{shares[what]:.0%}",
            f"{seconds[f'port, {what}'] / (seconds[f'ours, {what}'] * shares[what]):.2f}",
        ]
        for what in ("training", "scoring")
    ]
    return "\n".join(
        [
            "# PixelCNN++ against its PyTorch port (pclucas14/pixel-cnn-pp)",
            "",
            f"{cpu_name()}, 1 thread, torch {torch.__version__}, float32; {CONFIG.num_filters} filters, "
            f"{CONFIG.num_resnets} residual blocks a stage, {NUM_MIXTURES}",
            f"mixtures, weight normalisation, dropout {CONFIG.dropout}; {BATCH_SIZE} images at once. Processor seconds "
            f"a call, the least of {num_repeats},",
            "both networks' calls taking turns. Made by `python -m benchmarks.peer_pixelcnn_pp --peer FOLDER`.",
            "",
            tabulate(rows, COLUMNS, tablefmt="pipe", disable_numparse=True),
            "",
            "Convolutions: the share of our time inside torch's own (oneDNN). Bound: the ratio if all else took none.",
            "",
            "The port drops whole channels (one draw for each), ours each number as the authors' code does. The port's",
            "loss needs one fix to run without a GPU: `.cuda()` of its zeros becomes `.to(x.device)`.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of pclucas14/pixel-cnn-pp")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=REPORT)
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {given.repeats}")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    peer, loss = peer_network(given.peer)
    ours = PixelCNNpp(CIFAR10, CONFIG).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.from_numpy(training_arrays(DATA)[0].train[:BATCH_SIZE].copy())
    calls = timed_calls(ours, peer, loss, images)
    seconds = least_seconds(calls, given.repeats)
    shares = {what: convolution_share(calls[f"ours, {what}"]) for what in ("training", "scoring")}
    text = report(seconds, shares, given.repeats)
    write_text(given.output, text)
    print(text)


if __name__ == "__main__":
    run_stage(main)
