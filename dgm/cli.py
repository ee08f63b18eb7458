"""The `dgm` command: what can be done with a trained model, without writing Python."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dgm import __version__
from dgm.config.params import PARAMS_FILE, PROFILES, load_params
from dgm.errors import StageError
from dgm.runs.system_errors import line_of
from dgm.runs.termination import exit_code, hidden_interrupt, unwinding
from dgm.tracking.secrets import conceal_tracebacks

if TYPE_CHECKING:
    from dgm.model_api.contracts import Model
    from dgm.saved_run import SavedRun
    from dgm.types import Images

# torch and what needs it is imported inside the commands, so that usage errors and --help come at once

WIDTH = 100  # columns of a terminal that every table fits
MAX_PRINTED = 20  # images that `dgm score` lists; --csv writes all
RESULT_COLUMNS = ("name", "kind", "likelihood", "test_bits_per_subpixel", "test_standard_error", "published_test")


def run() -> NoReturn:
    """The entry point: exit code 0 done, 1 failed with one line, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM or SIGHUP."""
    conceal_tracebacks()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names need not be Unicode
    try:
        with unwinding():
            sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # the reader, e.g. `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def main(argv: Sequence[str]) -> int:
    """Runs one command line; its exit code. Wrong usage raises SystemExit(2), as argparse does."""
    arguments = make_parser().parse_args(argv)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        return exit_code(interrupt)
    except Exception as error:
        if (interrupt := hidden_interrupt()) is not None:
            print("interrupted", file=sys.stderr)
            return exit_code(interrupt)
        if (line := line_of(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """All sub-commands with their arguments."""
    parser = argparse.ArgumentParser(prog="dgm", description="Score, sample and compress CIFAR-10 images.")
    parser.add_argument("--version", action="version", version=f"dgm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", help="list the models")
    models.set_defaults(command=list_models)

    score = commands.add_parser("score", help="bits per sub-pixel of each image")
    _add_run(score)
    score.add_argument("path", type=Path, help="a folder of PNG files, or a PNG, .npy or .npz file")
    score.add_argument("--csv", type=Path, metavar="FILE", help="write every image's figure there")
    score.set_defaults(command=score_images)

    sample = commands.add_parser("sample", help="draw images")
    _add_run(sample)
    sample.add_argument("--num", type=int, default=16, help="how many (default: 16)")
    sample.add_argument("--seed", type=int, default=0, help="another seed draws other images (default: 0)")
    sample.add_argument("--temperature", type=float, default=1.0, help="1: the model itself; 0: most probable values")
    sample.add_argument(
        "--output", type=Path, required=True, help="grid.png, an .npy array, or a new folder for one PNG file per image"
    )
    sample.set_defaults(command=sample_images)

    compress = commands.add_parser("compress", help="a folder of 32x32 RGB PNG files -> one file, without loss")
    _add_run(compress)
    compress.add_argument("folder", type=Path)
    compress.add_argument("file", type=Path)
    compress.set_defaults(command=compress_images)

    decompress = commands.add_parser("decompress", help="the file -> a new folder with the same pixels and names")
    _add_run(decompress)
    decompress.add_argument("file", type=Path)
    decompress.add_argument("folder", type=Path)
    decompress.set_defaults(command=decompress_images)

    _add_prove(commands.add_parser("prove", help="check the likelihood of a model that is not part of this benchmark"))

    results = commands.add_parser("results", help="the table of results of a profile")
    _add_project(results)
    results.set_defaults(command=show_results)
    return parser


def _add_prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", help="FILE.py:NAME, which is run, or an installed entry point of dgm.prove"
    )
    parser.add_argument("--weights", type=Path, help="the file that NAME is given")
    parser.add_argument("--check", type=Path, metavar="CERTIFICATE", help="run the checks of a certificate and compare")
    parser.add_argument("--images", type=int, metavar="N", help="how many to code and decode (default: 1; 0: none)")
    parser.add_argument("--limit", type=int, metavar="N", help="score the first N images (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="CIFAR-10 as `dvc repro download` leaves it")
    parser.add_argument("--batch-size", type=int, default=16, help="images scored at a time (default: 16)")
    parser.add_argument(
        "--leak-seconds", type=float, default=45.0, help="of computing, to look for a leak (default: 45)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the certificate (default: NAME.certificate.json)")
    parser.set_defaults(command=prove_model)


def prove_model(arguments: argparse.Namespace) -> None:
    """Every check of a model, line by line, and its certificate."""
    from dgm.prove.command import check_certificate, prove_target

    (prove_target if arguments.check is None else check_certificate)(arguments)


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=PROFILES, help="default: the profile of params.yaml")
    parser.add_argument("--root", type=Path, help="the project; default: here, or the nearest folder above")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a name that `dgm models` lists")
    _add_project(parser)


def _project(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Root and profile."""
    from dgm.saved_run import find_project

    root: Path = find_project() if arguments.root is None else arguments.root
    return root, arguments.profile or load_params(root / PARAMS_FILE).profile


def _load(arguments: argparse.Namespace) -> SavedRun:
    from dgm.saved_run import load_run

    root, profile = _project(arguments)
    return load_run(profile, arguments.model, root)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> None:
    from tabulate import tabulate

    for line in tabulate(rows, columns, tablefmt="simple", disable_numparse=True, colalign=align).splitlines():
        print(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…")


def list_models(arguments: argparse.Namespace) -> None:
    """Every model of the registry: what its likelihood is and whether it compresses."""
    from dgm.model_api.latent_steps import can_compress
    from dgm.registry import MODELS, model_class
    from dgm.reporting.published import CATALOGUE

    rows: list[tuple[str, ...]] = []
    for name in sorted(MODELS):
        kind, entry = model_class(name), CATALOGUE[name]
        compresses = "yes" if can_compress(kind) else "no"
        rows.append((name, entry.name[:28], entry.family, likelihood_of(kind), compresses))
    _print_table(("model", "name", "family", "likelihood", "compress"), rows, ["left"] * 5)


def likelihood_of(kind: type[Model]) -> str:
    """How a class of models knows its likelihood, in the words of the tables."""
    from dgm.model_api import contracts

    if issubclass(kind, contracts.AutoregressiveModel):
        return contracts.EXACT
    if issubclass(kind, contracts.DensityModel):
        return contracts.DEQUANTIZED
    return "importance-weighted" if issubclass(kind, contracts.LatentVariableModel) else contracts.ELBO


def score_images(arguments: argparse.Namespace) -> None:
    """Bits per sub-pixel of each image and their mean."""
    from dgm.runs.atomic import check_writable, write_text

    if arguments.csv is not None:
        check_writable(arguments.csv)
    scores = _load(arguments).score(arguments.path)
    bound = "" if scores.kind == "exact" else "≤ "
    bits = scores.bits_per_subpixel.tolist()
    if arguments.csv is not None:
        write_text(arguments.csv, scores_csv(scores.names, bits))
    rows = [(name[-60:], f"{bound}{value:.4f}") for name, value in zip(scores.names, bits, strict=True)]
    _print_table(("image", "bits per sub-pixel"), rows[:MAX_PRINTED], ["left", "right"])
    if len(rows) > MAX_PRINTED:
        print(f"... and {len(rows) - MAX_PRINTED} more" + ("" if arguments.csv else "; --csv FILE writes all"))
    error = "" if scores.standard_error is None else f" ± {scores.standard_error:.4f}"
    images = "1 image" if len(rows) == 1 else f"{len(rows)} images"
    print(f"mean of {images}: {bound}{scores.mean:.4f}{error} bits per sub-pixel ({scores.method})")


def scores_csv(names: Sequence[str], bits: Sequence[float]) -> str:
    """image,bits_per_subpixel; numbers that read back bit-identical."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "bits_per_subpixel"))
    writer.writerows(
        (name.encode(errors="backslashreplace").decode(), repr(value)) for name, value in zip(names, bits, strict=True)
    )
    return text.getvalue()


def sample_images(arguments: argparse.Namespace) -> None:
    """One picture, one array or a folder of PNG files, by the suffix of --output."""
    from dgm.runs.atomic import check_writable

    output: Path = arguments.output
    suffix = output.suffix.lower()
    if suffix not in ("", ".png", ".npy"):
        raise StageError(f"{output}: --output must end with .png or .npy, or be a folder whose name has no dot")
    if not suffix and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise StageError(f"{output}: exists and is not an empty folder; name another one")
    check_writable(output if suffix else output / "sample_0.png")
    images = _load(arguments).sample(arguments.num, arguments.seed, arguments.temperature)
    _write_samples(output, suffix, images)
    print(f"{output}: {len(images)} samples of {arguments.model}")


def _write_samples(output: Path, suffix: str, images: Images) -> None:
    from dgm.data.pictures import write_pngs
    from dgm.runs.atomic import write_array
    from dgm.runs.picture import save_picture

    pixels = images.cpu().numpy()
    if suffix == ".png":
        save_picture(output, pixels, pixels[:0], pixels[:0])
    elif suffix == ".npy":
        write_array(output, pixels)
    else:
        digits = len(str(len(pixels) - 1))
        write_pngs([output / f"sample_{index:0{digits}}.png" for index in range(len(pixels))], pixels)


def compress_images(arguments: argparse.Namespace) -> None:
    """A folder of PNG files into one file."""
    bits = _load(arguments).compress(arguments.folder, arguments.file)
    print(f"{arguments.file}: {arguments.file.stat().st_size:,} bytes, {bits:.4f} bits per sub-pixel")


def decompress_images(arguments: argparse.Namespace) -> None:
    """One file back into a folder of PNG files."""
    files = _load(arguments).decompress(arguments.file, arguments.folder)
    print(f"{arguments.folder}: {len(files)} PNG {'file' if len(files) == 1 else 'files'}")


def show_results(arguments: argparse.Namespace) -> None:
    """reports/<profile>/results.csv as a table."""
    from dgm.runs.files import RunFiles

    root, profile = _project(arguments)
    path = RunFiles(profile, "", root).report / "results.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(RESULT_COLUMNS) - set(reader.fieldnames or ())
            rows = [] if missing else [_result_cells(row) for row in reader]
    except FileNotFoundError:
        raise StageError(f"{path}: no results yet; run `dvc repro`") from None
    except (ValueError, csv.Error, TypeError) as error:
        raise StageError(f"{path}: damaged ({error}); run `dvc repro` to write it again") from None
    if missing or not rows:
        raise StageError(f"{path}: damaged (no rows with {', '.join(RESULT_COLUMNS)}); run `dvc repro`")
    print(f"{profile} profile, CIFAR-10 test images, bits per sub-pixel, smaller is better, ≤ marks a bound")
    _print_table(("Model", "Published", "Ours", "± error", "How reached"), rows, ["left", *["right"] * 3, "left"])
    if any(cells[0].endswith("†") for cells in rows):
        print("† stale: code or parameters have changed since; `dvc repro` brings it up to date")


def _result_cells(row: dict[str, str]) -> list[str]:
    """Raises: ValueError or TypeError if a figure is not a number or is missing."""
    bound = "" if row["kind"] in ("exact", "") else "≤ "
    ours, error, published = (row[key] for key in RESULT_COLUMNS[3:])
    return [
        row["name"][:40] + (" †" if row.get("is_current") == "False" else ""),
        f"{float(published):.2f}" if published else "",
        f"{bound}{float(ours):.3f}" if ours else "",
        f"{float(error):.4f}" if error else "",
        row["likelihood"],
    ]
