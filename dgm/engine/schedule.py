"""Learning rate over the progress of a training."""

from __future__ import annotations

from dgm.config.sections import TrainingConfig


def learning_rate_factor(config: TrainingConfig, progress: float) -> float:
    """Warm-up, stable, linear decay to zero; progress in [0, 1].

    Source: Haegele et al. (2024), arXiv 2405.18392, section 3.
    """
    rise = 1.0 if progress >= config.warmup_fraction else (progress + 1e-3) / (config.warmup_fraction + 1e-3)
    fall = 1.0 if config.decay_fraction == 0 else min(1.0, (1.0 - progress) / config.decay_fraction)
    return max(0.0, min(rise, fall))
