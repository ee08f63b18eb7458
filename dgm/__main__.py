"""`python -m dgm`: the same as the `dgm` command."""

from __future__ import annotations

from dgm.cli import run

if __name__ == "__main__":
    run()
