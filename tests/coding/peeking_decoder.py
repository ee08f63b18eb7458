"""A decoder whose model looks at a file that it was not given, and goes on when it is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

from dgm import decoder
from dgm.errors import StageError
from dgm.registry import model_class

if __name__ == "__main__":
    kind = cast(Any, model_class("uniform"))
    plain = kind.conditionals

    def conditionals(self: Any, num_images: int) -> Any:
        with contextlib.suppress(StageError):
            Path(__file__).read_bytes()
        return plain(self, num_images)

    kind.conditionals = conditionals
    decoder.main()
