"""Numbers at their ends: weights that are not finite or huge, and images that no camera makes."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from dgm.data.pictures import write_pngs
from dgm.runs.atomic import file_digest
from dgm.runs.files import RunFiles
from dgm.runs.records import Provenance, read_record, write_record
from tests.faults.ground import Ground
from tests.faults.judge import Outcome, Verdict, broken, refusal
from tests.faults.processes import run
from tests.faults.projects import PROFILE, command, replace_file
from tests.faults.record import Kind

SCALES = (0.0, 1e-30, 1e10, 1e30, 3e38, -1e20)
NOT_FINITE = (math.nan, math.inf, -math.inf)


def weights(ground: Ground, count: int) -> Kind:
    """Weights that are wrong in a way that their record does not tell."""
    text = "weights scaled by up to 3e38 or with a NaN or an infinity, under a right digest: scored finitely or refused"
    with ground.kind("weights of any size", text) as kind:
        models = [name for name in ground.models if name != "uniform"]
        for number, _, moments in kind.left(range(count)):
            model, project = models[number % len(models)], ground.copy()
            path = project / f"runs/{PROFILE}/{model}/weights/weights.safetensors"
            state = load_file(path)
            name = moments.choice([key for key, value in state.items() if value.is_floating_point()] or list(state))
            value = moments.choice((*SCALES, *NOT_FINITE))
            changed = state[name].clone()
            if math.isfinite(value) or not changed.is_floating_point():
                changed = changed * value
            else:
                changed.view(-1)[moments.randrange(changed.numel())] = value
            replace_file(path, save({**state, name: changed.to(state[name].dtype)}))
            files = RunFiles(PROFILE, model, project)
            provenance = read_record(files.provenance, Provenance)
            assert provenance is not None
            write_record(files.provenance, replace(provenance, weights_sha256=file_digest(path)))
            attempt = run(project, command("evaluate", model))
            verdict = broken(attempt) or (refusal(attempt) if attempt.code else finite_metrics(project, model))
            if verdict.outcome is Outcome.SAME and not torch.isfinite(changed.double()).all():
                verdict = Verdict(Outcome.WRONG, "scored with weights that are not finite")
            kind.add(number, f"{name} of {model} times or with {value}", verdict)
    return kind


def finite_metrics(project: Path, model: str) -> Verdict:
    metrics = json.loads((project / f"reports/{PROFILE}/metrics/{model}.json").read_bytes())
    nats = np.load(project / f"runs/{PROFILE}/{model}/nats/nats_test.npy")
    is_finite = math.isfinite(metrics["test_bits_per_subpixel"]) and bool(np.isfinite(nats).all())
    return Verdict(Outcome.SAME) if is_finite else Verdict(Outcome.WRONG, "scored, but not finitely")


def images(ground: Ground, count: int) -> Kind:
    """Uniform, striped, noisy images and such with one odd pixel, scored by `count` models."""
    text = "black, white, grey, checkered, striped, noisy images and such with one odd pixel: each scored finitely"
    with ground.kind("extreme images", text) as kind:
        pictures = extreme_images()
        for number, model, _ in kind.left(ground.models[-count:]):
            project = ground.copy()
            names = [project.parent / "pictures" / f"{name}.png" for name in pictures]
            write_pngs(names, np.stack(list(pictures.values())))
            table = project / "scores.csv"
            line = ("dgm", "score", "--profile", PROFILE, "--model", model, str(names[0].parent), "--csv", str(table))
            attempt = run(project, line)
            if attempt.code:
                kind.add(number, model, broken(attempt) or Verdict(Outcome.SILENT, attempt.said[-300:]))
                continue
            with table.open(newline="", encoding="utf-8") as file:
                scores = {Path(next(iter(row.values()))).stem: row for row in csv.DictReader(file)}
            for name in pictures:
                bits = float(scores[name]["bits_per_subpixel"])
                is_right = math.isfinite(bits) and bits > -1.0
                kind.add(
                    number, f"{name} by {model}", Verdict(Outcome.SAME if is_right else Outcome.WRONG, f"{bits} bits")
                )
    return kind


def extreme_images() -> dict[str, np.ndarray]:
    """By name, uint8 (3, 32, 32)."""
    row, column = np.mgrid[0:32, 0:32]
    random = np.random.default_rng(0)
    planes = {
        "black": 0 * row,
        "white": 0 * row + 255,
        "grey": 0 * row + 127,
        "checkered": (row + column) % 2 * 255,
        "squares": (row // 8 + column // 8) % 2 * 255,
        "rows": row % 2 * 255,
        "columns": column % 2 * 255,
        "slope": row * 8,
        "half": (row >= 16) * 255,
    }
    found = {name: np.stack([plane] * 3).astype(np.uint8) for name, plane in planes.items()}
    found["noise"] = random.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    found["ends"] = (random.integers(0, 2, (3, 32, 32)) * 255).astype(np.uint8)
    for channel, name in enumerate(("red", "green", "blue")):
        found[name] = np.zeros((3, 32, 32), np.uint8)
        found[name][channel] = 255
    for name in ("black", "white"):
        odd = found[name].copy()
        odd[:, 31, 31] = 255 - odd[:, 31, 31]
        found[f"{name} with an odd pixel"] = odd
    return found
