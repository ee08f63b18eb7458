"""What has to be said of a profile's rows beside their figures: what our models are, which images, which machines.

What depends on the settings is made from the settings; what was measured once says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dgm.reporting.published import Remark
from dgm.reporting.rows import Row
from dgm.types import NUM_TRAIN_IMAGES


@dataclass(frozen=True)
class ModelSettings:
    """One model as params.yaml has it now: how many parameters, of them acting, and its section `model`."""

    parameters: int
    acting_parameters: int
    values: Mapping[str, object]


@dataclass(frozen=True)
class ProfileSettings:
    """Of one profile: how many training images are trained on (None: not known), and its models by name."""

    num_training_images: int | None = None
    models: Mapping[str, ModelSettings] = field(default_factory=dict[str, ModelSettings])


NO_SETTINGS = ProfileSettings()


def with_acting_parameters(row: Row, settings: ProfileSettings) -> Row:
    """The row with the number of parameters that can act, where the settings are still those of the result."""
    model = settings.models.get(row.model)
    if model is None or row.metrics is None or row.metrics.parameters != model.parameters:
        return row
    return replace(row, acting_parameters=model.acting_parameters)


def model_notes(rows: Sequence[Row], settings: ProfileSettings) -> list[Remark]:
    """How our models differ from their papers under the present settings, of rows that have a result with them."""
    current = {row.model for row in rows if row.is_current}
    notes = [
        note(settings.models[model].values)
        for model, note in NOTES.items()
        if model in current and model in settings.models
    ]
    return [note for note in notes if note.text]


def _deep_gmm(values: Mapping[str, object]) -> Remark:
    text = (
        "The architecture is this project's: blocks of transforms fitted by EM, chosen jointly through a tree of "
        "hidden states. That of the workshop paper is not known. The two figures are of two models."
    )
    return Remark("Deep GMM: our architecture", text)


def _draw(values: Mapping[str, object]) -> Remark:
    text = ""
    if values["has_linear_start"]:
        text = (
            "The prior is learned: the decoder gives the mean and the deviation of each glimpse's coefficients, where "
            "the paper draws from a standard normal. The windows start as tiles that cover the image, each with the "
            "principal components of its tile; the paper's windows start from the network alone. "
        )
    if values["has_subpixel_scale"]:
        text += "The canvas also holds a scale for each sub-pixel."
    return Remark("DRAW: our prior and our windows", text.rstrip())


def _vae_iaf(values: Mapping[str, object]) -> Remark:
    text = ""
    if values["has_subpixel_scale"]:
        text = "The decoder gives a scale for each sub-pixel of the likelihood; in the paper it is one per channel. "
    if values["has_linear_start"]:
        text += "Training starts at the bound of the PCA of patches."
    return Remark("VAE with IAF: our likelihood and our start", text.rstrip())


def _deep_diffusion(values: Mapping[str, object]) -> Remark:
    schedule = {
        "reciprocal": "the published schedule, step t of variance 1 / (T - t + 1)",
        "log_snr": "a schedule of equal falls of the log signal-to-noise ratio; the published one is 1 / (T - t + 1)",
    }[str(values["schedule"])]
    start = (
        "The start is the exact reverse of the Gaussian with the training images' mean and covariance, which the "
        "network corrects; the paper starts from the pixels' noise alone."
        if values["has_linear_start"]
        else "The start is the paper's: pixels of one mean and one scale."
    )
    steps = values["num_evaluation_steps"] or "all"
    return Remark(
        "Deep Diffusion: schedule, start and noise of the figure",
        f"{values['num_steps']} steps with {schedule}; the first has variance {values['first_variance']:g}. {start} "
        f"An image is scored at {steps} of the steps per pass, drawn at random with known probabilities.",
    )


NOTES = {"deep_gmm": _deep_gmm, "draw": _draw, "vae_iaf": _vae_iaf, "deep_diffusion": _deep_diffusion}


def basis_notes(rows: Sequence[Row], settings: ProfileSettings) -> list[Remark]:
    """What every figure rests on: the images, the near-duplicates among them, and the processor."""
    return [*_images(rows, settings), *MEASURED_ONCE]


def _images(rows: Sequence[Row], settings: ProfileSettings) -> list[Remark]:
    if settings.num_training_images is None:
        return []
    trained = f"{settings.num_training_images:,} of the {NUM_TRAIN_IMAGES:,} training images are trained on"
    others = NUM_TRAIN_IMAGES - settings.num_training_images
    held_out = f"; the last {others:,} are held out for validation" if others else ""
    counts = sorted({row.metrics.num_train_images for row in rows if row.metrics})
    sample = " or ".join(f"{count:,}" for count in counts)
    train = f" “Train” is the figure of {sample} of those, the same for every model." if counts else ""
    return [Remark("Which images", f"{trained}{held_out}.{train}")]


MEASURED_ONCE: tuple[Remark, ...] = (
    Remark(
        "Near-duplicates of test images among the training images",
        "CIFAR-10 has some. A search by thumbnails found six. Without them the figures change by at most 0.0002 bits. "
        "All 10,000 test images stay in.",
    ),
    Remark(
        "Another processor",
        "On one machine the same seed gives the same bits. Between processors sums are rounded differently, and "
        "training carries that on: from AMD to Intel the figures moved by up to 0.0026 bits.",
    ),
    Remark(
        "What a coder could and could not prove of a dequantized figure",
        "No file is written for these rows. A coder could: it cuts space into small bins, chooses a point in the "
        "image's cube by bits that the reader gets back, and writes the point's bin. Decoding would prove that the "
        "model's map can be undone, and the length of the file, less the bits got back, that the bound holds for these "
        "images. It could not prove the probability of the integer image itself, the density's integral over the cube: "
        "nobody has computed it, and the figure stays a bound. In place of a file, tests compare log-determinants with "
        "automatic differentiation, and integrate the density of tiny images.",
    ),
)
