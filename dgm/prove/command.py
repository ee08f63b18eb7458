"""The two uses of `dgm prove`: to make a certificate, and to check one."""

from __future__ import annotations

import argparse
from pathlib import Path

from dgm.errors import StageError
from dgm.prove.recheck import confirmation, differences
from dgm.prove.run import Asked, prove
from dgm.runs.certificates import FAILS, read_certificate, write_certificate


def prove_target(arguments: argparse.Namespace) -> None:
    """Runs the checks, writes the certificate. Raises: StageError if a check fails, once the certificate is written."""
    if arguments.target is None or arguments.weights is None:
        raise StageError("dgm prove: give FILE.py:NAME and --weights FILE, or --check CERTIFICATE")
    images = 1 if arguments.images is None else arguments.images
    name = arguments.target.rpartition(":")[2] or arguments.target
    output: Path = arguments.output or Path(f"{name}.certificate.json")
    if output.is_dir():
        raise StageError(f"{output}: is a folder; name a file")
    certificate = prove(_asked(arguments, arguments.target, arguments.weights, images, arguments.limit), _say)
    write_certificate(output, certificate)
    print(f"{output}: {certificate.tier}, after {certificate.seconds:.0f} s")
    failed = [line.check for line in certificate.checks if line.mark == FAILS]
    if failed:
        raise StageError(f"{arguments.target}: {certificate.tier}: {', '.join(failed)}")


def check_certificate(arguments: argparse.Namespace) -> None:
    """Runs what a certificate says was run. Raises: StageError that lists what is not as it says."""
    for name in ("images", "limit", "output"):
        if getattr(arguments, name) is not None:
            raise StageError(f"--{name}: the certificate says it; leave it out beside --check")
    stated = read_certificate(arguments.check)
    target = arguments.target or stated.target
    weights: Path = arguments.weights or Path(stated.weights_file)
    found = prove(_asked(arguments, target, weights, stated.num_images, stated.num_scored), _say)
    if lines := differences(stated, found):
        raise StageError(f"{arguments.check}: not confirmed\n       " + "\n       ".join(lines))
    print(f"{arguments.check}: {confirmation(stated, found)}")


def _asked(arguments: argparse.Namespace, target: str, weights: Path, num_images: int, limit: int | None) -> Asked:
    return Asked(
        target=target,
        weights=weights,
        data=arguments.data,
        num_images=num_images,
        limit=limit,
        batch_size=arguments.batch_size,
        leak_seconds=arguments.leak_seconds,
        device=arguments.device,
    )


def _say(line: str) -> None:
    print(line, flush=True)
