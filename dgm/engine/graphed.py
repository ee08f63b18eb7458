"""Training whose forward and backward pass a GPU replays as one CUDA graph.

A step of a small or recurrent network is thousands of small kernels: launching them one by one takes longer than
computing them. The first step runs them some times, so that every library has chosen its kernels, and captures them;
each step then fills the batch, seeds the generators and replays. Noise, batches and the order of all operations are
those of `Trainer`, so the figures are too, up to the rounding of a kernel chosen anew.

Source: "Accelerating PyTorch with CUDA Graphs" (pytorch.org, 2021), whole-network capture; torch.cuda.graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgm.engine.loop import CHECK_EVERY_ON_CUDA, Trainer
from dgm.engine.optimizers import set_learning_rate
from dgm.engine.schedule import learning_rate_factor
from dgm.seeds import Stream, derived_seed, seed_global
from dgm.units import nats_to_bits_per_subpixel

WARM_UPS = 3
NO_PROGRESS = float("nan")  # a captured objective cannot follow it; `dgm.settings` refuses models that would


class GraphedTrainer(Trainer):
    """`learn` leaves the gradients of `images` under `generator`; on a GPU it is captured, elsewhere it is called."""

    replay: Callable[[], None] | None = None
    loss: Tensor
    nats: Tensor

    def _start(self) -> None:
        super()._start()
        size = (self.config.batch_size, *self.train_images.shape[1:])
        self.images = torch.empty(size, dtype=self.train_images.dtype, device=self.device)
        self.generator = torch.Generator(self.device)

    def _train_step(self, progress: float) -> None:
        if self.replay is None:
            self._fill()
            self.replay = self._captured() if self.device.type == "cuda" else self.learn
        self._fill()
        set_learning_rate(self.optimizers, learning_rate_factor(self.config, progress))
        self.replay()
        if self.device.type != "cuda" or self.step % CHECK_EVERY_ON_CUDA == 0:
            self._check_loss(float(self.loss))
            mean_nats = self.nats / len(self.images)
            self.latest_train_bits = -float(nats_to_bits_per_subpixel(mean_nats, self.model.spec))
        self._clip_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.step)
        self.interval_nats += self.nats
        self.interval_images += len(self.images)
        self.step += 1

    def _fill(self) -> None:
        """The generators and the images as they are before the forward pass of this step."""
        self.generator.manual_seed(derived_seed(self.seed, Stream.STEP, self.step))
        seed_global(self.seed, Stream.GLOBAL, self.step)
        self.images.copy_(self._batch(self.generator))

    def learn(self) -> None:
        """Forward and backward pass: gradients, the loss (bits per sub-pixel) and the sum of nats."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self._precision():
            objective = self.model.objective(self.images, self.generator, NO_PROGRESS)
        loss = nats_to_bits_per_subpixel(objective.loss.mean(), self.model.spec)
        loss.backward()
        self.loss, self.nats = loss.detach(), objective.nats.detach().double().sum()

    def _captured(self) -> Callable[[], None]:
        """`learn` as a graph. What it moves besides gradients, such as running statistics, is as before."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.learn()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=stream):
            self.learn()
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        return graph.replay
