"""The use as a library: a trained model of one run, to score, sample and compress images with."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgm.coding.folder import compress_folder, decompress_folder
from dgm.config.params import PARAMS_FILE, load_params
from dgm.data.given_images import ImageSource, given_images
from dgm.errors import StageError
from dgm.evaluation.evaluate import evaluate_split
from dgm.fingerprints import coder_code, training_key
from dgm.model_api.contracts import AutoregressiveModel, LogLikelihood, Model
from dgm.model_api.latent_steps import can_compress
from dgm.runs.files import RunFiles
from dgm.runs.progress import track
from dgm.runs.weights import load_trained
from dgm.seeds import Stream, generator_for
from dgm.settings import build_scored_model, evaluation_config
from dgm.types import CIFAR10, Images
from dgm.units import nats_to_bits_per_subpixel

MAX_SAMPLES_AT_ONCE = 100  # more are drawn in further passes, so that memory does not grow with them


@dataclass(frozen=True)
class Scores:
    """What each image costs under one model.

    names: (N,), file names, or numbers from 0. bits_per_subpixel: (N,) float64. method: exact, dequantized, elbo or
    importance-weighted (K). kind: exact, or lower_bound on the log-likelihood, so that the bits are an upper bound.
    """

    names: list[str]
    bits_per_subpixel: torch.Tensor
    method: str
    kind: str

    @property
    def mean(self) -> float:
        """Mean bits per sub-pixel over the images."""
        return float(self.bits_per_subpixel.mean())

    @property
    def standard_error(self) -> float | None:
        """Of the mean over images; None for one image."""
        count = len(self.bits_per_subpixel)
        return float(self.bits_per_subpixel.std()) / math.sqrt(count) if count > 1 else None


class SavedRun:
    """One model with the weights that the train stage left; `load_run` makes it."""

    def __init__(self, profile: str, name: str, root: Path) -> None:
        params = load_params(root / PARAMS_FILE)
        self.name, self.seed = name, params.common_config(profile).run.seed
        self.evaluation = evaluation_config(params, name, profile)
        self.model: Model = build_scored_model(params, name, profile, CIFAR10).eval()
        load_trained(RunFiles(profile, name, root), self.model, training_key(params, name, profile))

    def log_likelihood(self, images: ImageSource) -> LogLikelihood:
        """log P of each image in nats, (N,), as the evaluate stage computes it, and how: exact, elbo and so on.

        images: a uint8 tensor or numpy array (N, 3, 32, 32) or (N, 32, 32, 3), or the path of a folder of PNG files,
        of a PNG, .npy or .npz file. Raises: StageError that says what came and what was expected.
        """
        return self._evaluated(given_images(images, self.model.spec).images)

    def bits_per_subpixel(self, images: ImageSource) -> torch.Tensor:
        """What each image costs, in the unit of the tables. Shapes: images as for `log_likelihood` -> float64 (N,)."""
        return self.score(images).bits_per_subpixel

    def score(self, images: ImageSource) -> Scores:
        """Bits per sub-pixel of each image with its name, their mean and how they were computed.

        images, Raises: as for `log_likelihood`.
        """
        given = given_images(images, self.model.spec)
        result = self._evaluated(given.images)
        bits = -nats_to_bits_per_subpixel(result.nats, self.model.spec)
        return Scores(given.names, bits, result.method, result.kind)

    def sample(self, num_images: int, seed: int, temperature: float = 1.0) -> Images:
        """Images that the model draws, others for another seed. Shapes: -> uint8 (N, 3, 32, 32).

        temperature: 1 is the model itself; below 1 the images are more likely ones. At 0 nothing is left to chance:
        each conditional's most probable level, or the image in the middle of each density and latent distribution.
        Raises: StageError if an argument is out of its range.
        """
        _check_sampling(num_images, seed, temperature)
        generator = generator_for(seed, Stream.SAMPLING, device=self.model.device)
        starts = range(0, num_images, MAX_SAMPLES_AT_ONCE)
        counts = [min(MAX_SAMPLES_AT_ONCE, num_images - start) for start in starts]
        return torch.cat([self.model.sample(count, generator, temperature) for count in counts])

    def compress(self, folder: Path | str, path: Path | str) -> float:
        """Writes all PNG images of a folder into one file; its bits per sub-pixel, names and header included.

        A latent-variable model codes by bits-back: some three images' worth of initial bits are in the file too.

        The content decides what is a PNG image; what else is in the folder is skipped and listed on stderr.
        Raises: StageError naming an image that is not a 32x32 RGB PNG, or if the model cannot compress.
        """
        return compress_folder(self._coder(), self.name, self._code(), Path(folder), Path(path), self._bar)

    def decompress(self, path: Path | str, folder: Path | str) -> list[Path]:
        """Writes the same pixels under the same names into a new or empty folder; the files, in alphabetical order.

        Raises: StageError if the file is damaged, or of another model, other weights or another version.
        """
        return decompress_folder(self._coder(), self.name, self._code(), Path(path), Path(folder), self._bar)

    def _evaluated(self, images: Images) -> LogLikelihood:
        result = evaluate_split(self.model, images, self.evaluation, self.seed, self.name, track)
        return LogLikelihood(result.nats, result.method)

    def _coder(self) -> Model:
        if not can_compress(type(self.model)):
            raise StageError(f"{self.name} cannot compress: it has neither exact conditionals nor latents to code")
        return self.model

    def _code(self) -> str:
        return coder_code(self.name)

    def _bar(self, steps: Sequence[int]) -> Iterable[int]:
        unit = "sub-pixel" if isinstance(self.model, AutoregressiveModel) else "image"
        return track(steps, len(steps), f"code {self.name}", unit)


def load_run(profile: str, model: str, root: Path | str | None = None) -> SavedRun:
    """The model that `python -m stages.train` trained in the project at `root`, with its weights.

    root: by default the nearest folder with a params.yaml, from the working directory upwards.
    Raises: ConfigError if there is no such project, profile or model; StageError if it has not been trained.
    """
    return SavedRun(profile, model, find_project() if root is None else Path(root))


def find_project() -> Path:
    """The nearest folder with a params.yaml: the working directory, as '.', or one above it.

    Raises: StageError if there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS_FILE).is_file():
            return Path(".") if folder == here else folder
    raise StageError(f"{here}: no {PARAMS_FILE} here or in a folder above; go to the project or name it as the root")


def _check_sampling(num_images: Any, seed: Any, temperature: Any) -> None:  # a caller may pass anything
    for name, value, least in (("number of images", num_images, 1), ("seed", seed, 0)):
        try:
            is_good = not isinstance(value, bool) and operator.index(value) >= least
        except TypeError:
            is_good = False
        if not is_good:
            raise StageError(f"{name}: must be a whole number of at least {least}, got {value!r}")
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not math.isfinite(temperature) or temperature < 0:
        raise StageError(f"temperature: must be a finite number of at least 0, got {temperature!r}")
