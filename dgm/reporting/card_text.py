"""Text with figures in it: placeholders, and sentences that are only said where the figures bear them out.

    The ridge needs {ridge_autoregressive.test:.3f} bits.
    [ridge_autoregressive.test < pixelcnn.test] It beats PixelCNN.
    [draw.settings.has_linear_start] [not draw.settings.has_attention] The canvas is linear.
    [profile = cpu] Training took three minutes.

A placeholder is a name of `Figures`, with a format after a colon. Conditions stand in brackets before the sentence that
they are for. A sentence is left out if a figure in it is not there, or a condition does not hold. Sentences end with
a full stop, a question or an exclamation mark before a space; a text has no abbreviation with a full stop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from dgm.reporting.rows import PairedDifference, Row
from dgm.reporting.settings_notes import NO_SETTINGS, ProfileSettings
from dgm.runs.records import ReferenceCodec, Rung
from dgm.types import CIFAR10

BITS_OF_A_WEIGHT = 32  # float32

Value: TypeAlias = "float | str"
Figures: TypeAlias = Mapping[str, Value]  # "pixelcnn.test" -> 4.178

_NAME = r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*"
_PLACEHOLDER = re.compile(r"\{(" + _NAME + r")(?::([^{}]+))?\}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_CONDITION = re.compile(r"\[([^\[\]]*)\]\s*")
_TEST = re.compile(rf"(?P<no>not )?(?P<left>{_NAME})(?: (?P<sign>[<>=]) (?P<right>[a-z0-9_.-]+))?")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def checked_text(text: str) -> str:
    """The text, its white space evened out. Raises: ValueError naming the condition or brace that cannot be read."""
    for sentence in _END_OF_SENTENCE.split(text):
        conditions, words = _parts(sentence)
        for condition in conditions:
            if not _TEST.fullmatch(condition):
                raise ValueError(f"cannot read the condition [{condition}]")
        rest = _PLACEHOLDER.sub("", words)
        if re.search(r"[{}\[\]]", rest):
            raise ValueError(f"cannot read a placeholder or a condition within {words!r}")
    return " ".join(text.split())


def sentences_that_hold(text: str, figures: Figures) -> list[str]:
    """The sentences of the text whose conditions hold and whose figures are there, with the figures in them."""
    said: list[str] = []
    for sentence in _END_OF_SENTENCE.split(text):
        conditions, words = _parts(sentence)
        names = [match[1] for match in _PLACEHOLDER.finditer(words)]
        if all(name in figures for name in names) and all(_holds(condition, figures) for condition in conditions):
            said.append(_PLACEHOLDER.sub(lambda match: format(figures[match[1]], match[2] or ""), words))
    return said


def _parts(sentence: str) -> tuple[list[str], str]:
    conditions: list[str] = []
    while match := _CONDITION.match(sentence):
        conditions.append(match[1])
        sentence = sentence[match.end() :]
    return conditions, " ".join(sentence.split())


def _holds(condition: str, figures: Figures) -> bool:
    test = _TEST.fullmatch(condition)
    if test is None or test["left"] not in figures:
        return False
    left = figures[test["left"]]
    if test["sign"] is None:
        return bool(left) != bool(test["no"])
    right = figures.get(test["right"], test["right"])
    if test["sign"] == "=":
        return (str(left) == str(right)) != bool(test["no"])
    if isinstance(right, str) and not _NUMBER.fullmatch(right):  # a figure that is not there
        return False
    return (float(left) < float(right) if test["sign"] == "<" else float(left) > float(right)) != bool(test["no"])


def profile_figures(
    profile: str,
    rows: Sequence[Row],
    settings: ProfileSettings = NO_SETTINGS,
    codecs: Sequence[ReferenceCodec] = (),
    rungs: Sequence[Rung] = (),
    differences: Sequence[PairedDifference] = (),
) -> dict[str, Value]:
    """What placeholders and conditions may name, by its name; what was not measured is not in it.

    profile. Of a model, as <model>.<name>: test, train, gap (test less train), gap_error
    (standard, of the gap), error (standard), spread (over images),
    monte_carlo, elbo, start, final (validation bits), published, published_train, parameters, acting, weight_bits (of
    the parameters, per test sub-pixel), alarm, seconds, images_seen, steps, pflop (of training), compressed, claimed,
    num_coded, initial_bits, num_changed, num_endings (of the checks), term.<term>; settings.<field> of a result that is
    current. gain.<model>.<better model>. codec.<name>.file, joined. ppca.rung.<components>, ppca.em.<components>.
    difference.<model a>.<model b>.bits, error, unpaired: what a saves over b on the same images, its error, and what
    the error would be on different images. Names are in small letters, with _ for all that is no letter or digit.
    """
    figures: dict[str, Value | None] = {"profile": profile}
    for row in rows:
        figures |= {f"{row.model}.{name}": value for name, value in _of_row(row).items()}
        if row.is_current and row.model in settings.models:
            for name, value in settings.models[row.model].values.items():
                figures[f"{row.model}.settings.{name}"] = plain(value)
    tested = [(row.model, row.test_bits) for row in rows if row.test_bits is not None]
    figures |= {f"gain.{old}.{new}": bits - better for old, bits in tested for new, better in tested}
    for codec in codecs:
        name = _small(codec.codec)
        figures[f"codec.{name}.file"] = codec.file_bits_per_subpixel
        figures[f"codec.{name}.joined"] = codec.joined_bits_per_subpixel
    for rung in rungs:
        figures[f"ppca.rung.{rung.num_components}"] = rung.test_bits_per_subpixel
        figures[f"ppca.em.{rung.num_components}"] = rung.em_test_bits_per_subpixel
    for pair in differences:
        name = f"difference.{pair.model_a}.{pair.model_b}"
        figures |= {f"{name}.bits": pair.difference_bits_per_subpixel, f"{name}.error": pair.standard_error}
        errors = [figures.get(f"{model}.error") for model in (pair.model_a, pair.model_b)]
        if all(isinstance(error, float) for error in errors):
            figures[f"{name}.unpaired"] = math.hypot(*(float(error) for error in errors if error is not None))
    return {name: value for name, value in figures.items() if value is not None}


def plain(value: object) -> Value:
    """A setting as a sentence shows it: nothing is 0, a list is its parts with commas."""
    if value is None:
        return 0
    if isinstance(value, (int, float, str)):
        return value
    return ", ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)


def _small(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _of_row(row: Row) -> dict[str, Value | None]:
    values: dict[str, Value | None] = {
        "published": row.published.published_test,
        "published_train": row.published.published_train,
    }
    if row.metrics is None:
        return values
    metrics, cost, coded = row.metrics, row.provenance, row.compression
    start, final = row.validation_ends
    values |= {
        "test": metrics.test_bits_per_subpixel,
        "train": metrics.train_bits_per_subpixel,
        "gap": metrics.test_bits_per_subpixel - metrics.train_bits_per_subpixel,
        "gap_error": math.hypot(metrics.test_standard_error, metrics.train_standard_error),
        "error": metrics.test_standard_error,
        "spread": metrics.test_standard_error * math.sqrt(metrics.num_test_images),
        "weight_bits": BITS_OF_A_WEIGHT * metrics.parameters / (metrics.num_test_images * CIFAR10.num_subpixels),
        "monte_carlo": metrics.test_monte_carlo_error,
        "elbo": metrics.elbo_test_bits_per_subpixel,
        "parameters": metrics.parameters,
        "acting": row.acting_parameters,
        "start": start,
        "final": final,
        "alarm": row.alarm,
    }
    values |= {f"term.{_small(name)}": bits for name, bits in metrics.terms_bits_per_subpixel.items()}
    if (asked := row.conformance) is not None:
        values |= {"num_changed": asked.num_changed_subpixels, "num_endings": asked.num_replaced_endings}
    if cost is not None:
        values |= {"seconds": cost.train_seconds, "images_seen": cost.images_seen, "steps": cost.num_steps}
        values["pflop"] = None if row.training_flops is None else row.training_flops / 1e15
    if coded is not None and coded.num_images:
        values |= {"compressed": coded.compressed_bits_per_subpixel, "claimed": coded.claimed_bits_per_subpixel}
        values |= {"num_coded": coded.num_images, "initial_bits": coded.initial_bits}
    return values
