"""The use as a library: a trained model of one run, to score, draw and compress images with."""

from __future__ import annotations

from pathlib import Path

import torch

from dgm.coding.folder import compress_folder, decompress_folder
from dgm.config.params import PARAMS_FILE, load_params
from dgm.errors import StageError
from dgm.evaluation.evaluate import evaluate_split
from dgm.fingerprints import coder_code
from dgm.model_api.contracts import AutoregressiveModel, LogLikelihood, Model
from dgm.runs.files import RunFiles
from dgm.runs.progress import track
from dgm.runs.weights import load_weights
from dgm.seeds import Stream, generator_for
from dgm.settings import build_model, evaluation_config
from dgm.types import CIFAR10, Images
from dgm.units import nats_to_bits_per_subpixel

CODE = Path(__file__).parent.parent


class SavedRun:
    """One model with the weights that the train stage left; `load_run` makes it."""

    def __init__(self, profile: str, name: str, root: Path) -> None:
        params = load_params(root / PARAMS_FILE)
        self.name, self.seed = name, params.common_config(profile).run.seed
        self.evaluation = evaluation_config(params, name, profile)
        self.model: Model = build_model(params, name, profile, CIFAR10).eval()
        remedy = f"run `python -m stages.train --model {name} --profile {profile}`"
        load_weights(RunFiles(profile, name, root).weights, self.model, remedy)

    def log_likelihood(self, images: Images) -> LogLikelihood:
        """log P of each image in nats, (N,), as the evaluate stage computes it, and how: exact, elbo and so on.

        Shapes: images uint8 (N, 3, 32, 32). Raises: TypeError or ValueError if they are not.
        """
        self.model.check_images(images)
        result = evaluate_split(self.model, images, self.evaluation, self.seed, self.name, track)
        return LogLikelihood(result.nats, result.method)

    def bits_per_subpixel(self, images: Images) -> torch.Tensor:
        """What each image costs, in the unit of the tables. Shapes: uint8 (N, 3, 32, 32) -> float64 (N,)."""
        return -nats_to_bits_per_subpixel(self.log_likelihood(images).nats, self.model.spec)

    def sample(self, num_images: int, seed: int, temperature: float = 1.0) -> Images:
        """Images that the model draws, others for another seed. Shapes: -> uint8 (N, 3, 32, 32)."""
        generator = generator_for(seed, Stream.SAMPLING, device=self.model.device)
        return self.model.sample(num_images, generator, temperature)

    def compress(self, folder: Path | str, path: Path | str) -> float:
        """Writes all PNG files of a folder into one file; its bits per sub-pixel, names and header included.

        Memory grows with the number of images: all are coded side by side.
        Raises: StageError naming a file that is no 32x32 RGB PNG, or if the model is not autoregressive.
        """
        return compress_folder(self._coder(), self.name, self._code(), Path(folder), Path(path))

    def decompress(self, path: Path | str, folder: Path | str) -> list[Path]:
        """Writes the same pixels under the same names into a new folder; the files, in alphabetical order.

        Raises: StageError if the file is damaged, or of another model, other weights or another version.
        """
        return decompress_folder(self._coder(), self.name, self._code(), Path(path), Path(folder))

    def _coder(self) -> AutoregressiveModel:
        if not isinstance(self.model, AutoregressiveModel):
            raise StageError(f"{self.name} cannot compress: only autoregressive models have exact conditionals")
        return self.model

    def _code(self) -> str:
        return coder_code(self.name, CODE)


def load_run(profile: str, model: str, root: Path | str = ".") -> SavedRun:
    """The model that `python -m stages.train` trained in the project at `root`, with its weights.

    Raises: ConfigError if there is no such profile or model; StageError if it has not been trained.
    """
    return SavedRun(profile, model, Path(root))
