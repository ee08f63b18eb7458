"""Adapters read what the usual networks put out; examples and certificates are what the documents say."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dgm.cli import main
from dgm.errors import StageError
from dgm.prove import Flow, LogisticMixtures, Logits, PixelMixture
from dgm.prove.inputs import network_input, positions
from dgm.reporting.certificates import certificates_table
from dgm.reporting.files import make_report
from dgm.runs.certificates import (
    FOLDER,
    Certificate,
    CheckLine,
    read_certificate,
    read_certificates,
    tier_of,
    write_certificate,
)
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import all_images, random_images

ROOT = Path(__file__).parent.parent.parent
SPEC = ImageSpec(3, 2, 4, levels=5)


@pytest.mark.parametrize(
    ("order", "shape"),
    [
        ((0, 4, 1, 2, 3), None),
        ((0, 1, 4, 2, 3), None),
        ((0, 1, 2, 3, 4), None),
        ((0, 1, 4, 2, 3), (2, 15, 2, 4)),
    ],
)
def test_logits_of_every_layout_are_the_same_model(order: tuple[int, ...], shape: tuple[int, ...] | None) -> None:
    logits = torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output = logits.permute(order)
    model = Logits(lambda x: output if shape is None else output.reshape(shape), spec=SPEC).double()
    images = random_images(SPEC, 2)
    expected = logits.log_softmax(dim=-1)
    assert torch.allclose(model.log_pmf(images), expected)
    chosen = expected.gather(-1, images.long().unsqueeze(-1)).flatten(1).sum(dim=1)
    assert torch.allclose(model.log_prob(images), chosen)


def pixelcnn_pp_log_prob(x: Tensor, l: Tensor, num_mixtures: int) -> Tensor:  # noqa: E741
    """The authors' discretized_mix_logistic_loss without its approximation, x in [-1, 1]. Shapes: NHWC -> (N,)."""
    logits = l[..., :num_mixtures].log_softmax(dim=-1)
    rest = l[..., num_mixtures:].reshape(*x.shape, 3 * num_mixtures)
    means, log_scales = rest[..., :num_mixtures], rest[..., num_mixtures : 2 * num_mixtures].clamp(min=-7)
    coeffs = rest[..., 2 * num_mixtures :].tanh()
    x = x.unsqueeze(-1)
    second = means[..., 1, :] + coeffs[..., 0, :] * x[..., 0, :]
    third = means[..., 2, :] + coeffs[..., 1, :] * x[..., 0, :] + coeffs[..., 2, :] * x[..., 1, :]
    means = torch.stack([means[..., 0, :], second, third], dim=-2)
    upper = torch.where(x > 0.999, 1.0, ((x - means + 1 / 255) * (-log_scales).exp()).sigmoid())
    lower = torch.where(x < -0.999, 0.0, ((x - means - 1 / 255) * (-log_scales).exp()).sigmoid())
    return ((upper - lower).log().sum(dim=-2) + logits).logsumexp(dim=-1).flatten(1).sum(dim=1)


def test_the_mixture_is_that_of_pixelcnn_pp() -> None:
    spec = ImageSpec(3, 2, 4, levels=256)
    images = random_images(spec, 3)
    images[0] = 0
    images[1] = 255
    output = torch.randn(3, 40, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = PixelMixture(lambda x: output, spec=spec).double()
    x = images.permute(0, 2, 3, 1).double() / 127.5 - 1
    expected = pixelcnn_pp_log_prob(x, output.permute(0, 2, 3, 1), 4)
    assert torch.allclose(model.log_prob(images), expected, atol=1e-8)
    chosen = model.log_pmf(images).gather(-1, images.long().unsqueeze(-1)).flatten(1).sum(dim=1)
    assert torch.allclose(chosen, expected, atol=1e-8)


def test_separate_mixtures_are_those_of_each_channel_and_sum_to_one() -> None:
    spec = ImageSpec(2, 1, 1, levels=6)
    output = torch.randn(1, 18, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = LogisticMixtures(lambda x: output.expand(len(x), -1, -1, -1), spec=spec).double()
    images = all_images(spec)
    assert float(model.log_prob(images).exp().sum()) == pytest.approx(1.0)
    logits, means, log_scales = output.view(2, 3, 3)[1]  # of the second channel
    edges = torch.tensor([-torch.inf, -0.8, -0.4, 0.0, 0.4, 0.8, torch.inf]).double().unsqueeze(1)
    cumulative = ((edges - means) * (-log_scales).exp()).sigmoid()
    expected = ((cumulative[1:] - cumulative[:-1]) * logits.softmax(0)).sum(dim=1)
    assert torch.allclose(model.log_pmf(images[:1])[0, 1, 0, 0].exp(), expected)
    five = LogisticMixtures(lambda x: output.view(1, 2, 9, 1, 1).expand(len(x), -1, -1, -1, -1), spec=spec).double()
    assert torch.equal(five.log_prob(images), model.log_prob(images))


@pytest.mark.parametrize("adapter", [Logits, PixelMixture, LogisticMixtures])
def test_another_output_is_named_with_what_was_expected(adapter: type[Logits]) -> None:
    model = adapter(lambda x: torch.zeros(len(x), 7, 2, 4), spec=SPEC)
    with pytest.raises(ValueError, match=r"puts out \(2, 7, 2, 4\); .* reads \(N, .*C=3, H=2, W=4 and 5 levels"):
        model.log_prob(random_images(SPEC, 2))


def test_inputs_and_orders() -> None:
    images = torch.tensor([0, 4]).to(torch.uint8).view(2, 1, 1, 1)
    for scaling, (low, high) in {"levels": (0, 4), "unit": (0, 1), "symmetric": (-1, 1), "integers": (0, 4)}.items():
        x = network_input(images, scaling, 5, torch.float64)  # type: ignore[arg-type]
        assert x.flatten().tolist() == [low, high]
        assert x.dtype == (torch.int64 if scaling == "integers" else torch.float64)
    assert network_input(images, lambda given: given.float() / 2, 5, torch.float64).dtype == torch.float64
    assert positions("raster", SPEC)[:4].tolist() == [0, 8, 16, 1]
    assert positions("planes", SPEC)[:4].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="inputs: must be one of levels, unit"):
        Logits(lambda x: x, inputs="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order: must hold each of 0 to 23 once"):
        Logits(lambda x: x, order=torch.zeros(24), spec=SPEC)
    with pytest.raises(ValueError, match="order: must be one of raster, planes"):
        Logits(lambda x: x, order="columns", spec=SPEC)  # type: ignore[arg-type]


def test_a_flow_is_converted_to_grey_levels() -> None:
    def uniform(x: Tensor) -> Tensor:  # on [-0.5, 0.5): a density of 1
        assert float(x.min()) >= -0.5 and float(x.max()) < 0.5
        return torch.zeros(len(x))

    result = Flow(uniform, -0.5, 0.5).log_likelihood(random_images(CIFAR10, 2), torch.Generator().manual_seed(0))
    assert (-result.nats / CIFAR10.num_subpixels / torch.tensor(2.0).log()).tolist() == pytest.approx([8.0, 8.0])
    assert result.method == "dequantized"
    with pytest.raises(ValueError, match="low and high"):
        Flow(uniform, 1.0, 1.0)


EXAMPLES = [
    (path.stem, name)
    for path in sorted((ROOT / "examples" / "prove").glob("*.py"))
    for name in re.findall(r"^def (\w+)\(weights: Path\)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize(("file", "name"), EXAMPLES)
def test_the_documented_examples_run(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    # the weights are those that the example's network starts with
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
    path = ROOT / "examples" / "prove" / f"{file}.py"
    options = ["--data", "none", "--images", "0", "--leak-seconds", "0.01"]
    assert main(["prove", f"{path}:{name}", "--weights", str(weights), *options]) == 0
    assert "✗" not in capsys.readouterr().out
    found = read_certificate(tmp_path / f"{name}.certificate.json")
    assert found.tier == "contract-tested" and found.target == f"{file}.py:{name}"
    assert f"examples/prove/{file}.py" in (ROOT / "docs" / "prove.md").read_text(encoding="utf-8")


def made_up(**changes: object) -> Certificate:
    checks = [CheckLine("✓", "probabilities sum to one", "all of them"), CheckLine("–", "file decoded", "--images 0")]
    digest = "0" * 64
    stated = Certificate(
        format=1,
        name="theirs",
        target="model.py:theirs",
        weights_file="weights.pt",
        likelihood="exact",
        tier="contract-tested",
        checks=checks,
        bits_per_subpixel=3.5,
        standard_error=0.01,
        images="CIFAR-10 test images",
        num_scored=10000,
        num_decoded=0,
        num_images=0,
        payload_bytes=0,
        header_bytes=0,
        parameters=1000,
        weights_bytes=4000,
        code={"model.py": digest},
        weights=digest,
        data=digest,
        nats=digest,
        versions={"torch": "2"},
        device="a core",
        seconds=1.0,
    )
    return replace(stated, **changes)  # type: ignore[arg-type]


def test_the_tier_follows_from_the_lines() -> None:
    checks = made_up().checks
    assert tier_of(checks, 0) == "contract-tested"
    assert tier_of(checks, 1) == "decoded (1 image)" and tier_of(checks, 12) == "decoded (12 images)"
    assert tier_of(checks[1:], 0) == "scored only"
    assert tier_of([*checks, CheckLine("✗", "causality", "a leak")], 12) == "refuted (1 of 3 checks fail)"


def test_a_certificate_is_read_as_it_was_written_and_a_bad_one_is_a_line(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    write_certificate(folder / "b.json", made_up())
    write_certificate(folder / "a.json", made_up(name="bound", likelihood="elbo", bits_per_subpixel=3.25))
    assert read_certificate(folder / "b.json") == made_up()
    text = (folder / "b.json").read_text(encoding="utf-8")
    (folder / "c.json").write_text(text.replace('"contract-tested"', '"decoded (10000 images)"'), encoding="utf-8")
    (folder / "d.json").write_text(text.replace("3.5", "-Infinity"), encoding="utf-8")
    (folder / "e.json").write_text("{", encoding="utf-8")
    certificates, faults = read_certificates(folder)
    assert [found.name for found in certificates] == ["bound", "theirs"]
    assert "c.json: tier is 'decoded (10000 images)', but the checks make it 'contract-tested'" in faults[0]
    assert "d.json: " in faults[1] and "e.json: " in faults[2] and not any("\n" in fault for fault in faults)
    for change in ({"num_scored": 0}, {"nats": None}, {"code": {}}, {"checks": []}, {"likelihood": "sure"}):
        with pytest.raises(ValueError):  # noqa: PT011
            made_up(**change)
    with pytest.raises(StageError, match="write it again with `dgm prove`"):
        read_certificate(folder / "c.json")


def test_the_page_has_a_table_of_certificates_and_names_a_bad_one(tmp_path: Path) -> None:
    assert "Models of other people" not in make_report("cpu", {}, tmp_path).files["index.html"].decode("utf-8")
    folder = tmp_path / FOLDER
    write_certificate(folder / "a.json", made_up(name="<i>theirs</i>"))
    (folder / "b.json").write_text("{}", encoding="utf-8")
    report = make_report("cpu", {}, tmp_path)
    html = report.files["index.html"].decode("utf-8")
    assert "Models of other people</h2>" in html and "&lt;i&gt;theirs" in html and "3.500 ± 0.010" in html
    assert len(report.faults) == 1 and "b.json" in report.faults[0] and "b.json" in html


def test_the_table_says_what_is_a_bound_and_what_fails() -> None:
    failing = [*made_up().checks, CheckLine("✗", "causality", "a leak")]
    rows = [
        made_up(
            bits_per_subpixel=None, standard_error=None, data=None, nats=None, num_scored=0, images="made-up images"
        ),
        made_up(likelihood="elbo", bits_per_subpixel=3.25, standard_error=None),
        made_up(checks=failing, tier=tier_of(failing, 0)),
    ]
    table = certificates_table(rows)
    assert [cells[1] for cells in table.cells] == ["≤ 3.250", "3.500 ± 0.010", ""]
    assert table.cells[1][4:6] == ("refuted (1 of 3 checks fail)", "1 ✓ 1 ✗ 1 – (causality)")
    assert asdict(rows[1])["bits_per_subpixel"] == 3.25 and table.cells[2][3] == "nothing"
