"""How large a number of a model's section may be: what no computer finishes is refused before it is built.

The limits are far above the published sizes (15 layers, 2,048 features) and keep the check of a model below seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from dgm.config.parse import Config, ConfigError, shown
from dgm.config.sections import MAX_IMAGES, MAX_SEED
from dgm.types import CIFAR10

MAX_COUNT = 100_000  # of anything that a model's section counts and that is not named below
MAX_ENTRIES = 100  # of a list
LARGEST, SMALLEST = 1e9, 1e-12  # of a fraction that is not 0: both stay far from overflow in float32
_BY_KEY = (  # the first that matches the key
    (r".*seed", MAX_SEED),
    (r"num_.*images", MAX_IMAGES),
    (r"num_hidden_layers|num_resnets", 16),  # inside each layer of others
    (r"num_.*(layers|blocks|couplings|resnets|cycles|stages)|num_scales", 64),
    (r".*(radius|reach|rows|stride|block|block_size)", CIFAR10.height),  # there is no pixel further away
    (r".*kernel_size", 2 * CIFAR10.height + 1),
    (r".*dilations", CIFAR10.num_subpixels),
    (r"num_.*steps", 4_000),
    (r"num_bumps|num_masks|ensemble_size", 1_000),
)


def check_limits(config: Config, where: Callable[[str], str]) -> None:
    """Refuses a section `model` that is too large to be built.

    where: key -> its key path in params.yaml. Raises: ConfigError, one line for each key that is over its limit.
    """
    values = config.model_dump()
    problems = [f"{where(key)}: {problem}" for key in values for problem in _problems(key, values[key])]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(key: str, value: Any) -> Iterator[str]:
    """Of one key."""
    limit = next((limit for pattern, limit in _BY_KEY if re.fullmatch(pattern, key)), MAX_COUNT)
    entries: list[Any] = value if isinstance(value, list) else [value]
    if len(entries) > MAX_ENTRIES:
        yield f"must have at most {MAX_ENTRIES} entries, got {len(entries)}"
        return
    for entry in entries:
        if isinstance(value, list) and isinstance(entry, int) and entry < 1:  # sizes, one a layer
            yield f"must be at least 1, got {shown(entry)}"
        if isinstance(entry, int) and entry > limit:
            yield f"must be at most {limit}, got {shown(entry)}"
        if isinstance(entry, float) and abs(entry) > 0 and not SMALLEST <= abs(entry) <= LARGEST:
            yield f"must be between {SMALLEST:g} and {LARGEST:g}, got {shown(entry)}"
