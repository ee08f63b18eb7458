"""The catalogue: every row of the lecture's two tables and of this project, with the published figure and its source.

All figures are bits per sub-pixel on CIFAR-10; smaller is better. A table repeats what was published, row for row; what
is known to be second-hand, converted or unexplained says so in `note`. `published_compute` repeats what its authors
say of the published training, with the place in brackets; empty where nothing was found. REMARKS and STARTS are what
else has to be said of single models.
"""

from __future__ import annotations

from dataclasses import dataclass

PIXELRNN = "van den Oord, Kalchbrenner & Kavukcuoglu (2016), ICML, arXiv 1601.06759"
GATED = "van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu (2016), NIPS, arXiv 1606.05328"
PIXELCNN_PP = "Salimans, Karpathy, Chen & Kingma (2017), ICLR, arXiv 1701.05517"
DIFFUSION = "Sohl-Dickstein, Weiss, Maheswaranathan & Ganguli (2015), ICML, arXiv 1503.03585"
NICE = "Dinh, Krueger & Bengio (2015), ICLR workshop, arXiv 1410.8516"
DEEP_GMM = "van den Oord & Dambre (2015), ICML Deep Learning Workshop"

CLOSED_FORM, MIXTURE, FLOW, DIFFUSION_FAMILY = "closed form", "mixture", "flow", "diffusion"
AUTOREGRESSIVE, LATENT = "autoregressive", "latent variable"


@dataclass(frozen=True)
class PublishedRow:
    """One row of one table. Figures in bits per sub-pixel; None where nothing was published."""

    key: str
    name: str
    family: str
    published_test: float | None
    published_train: float | None
    published_source: str
    note: str = ""
    published_compute: str = ""


_DIFFUSION_COMPUTE = (
    "CIFAR-10 samples of the released code are from epoch 1,700; machine and time are not stated "
    "(README of Sohl-Dickstein/Diffusion-Probabilistic-Models)"
)
_NICE = PublishedRow(
    "nice",
    "NICE",
    FLOW,
    4.48,
    None,
    NICE,
    "The paper prints 5371.78 nats on data scaled to [-1, 1]: 7 - 5371.78 / (3072 ln 2) = 4.477.",
    "At most 1,500 epochs of 40,000 images, on GeForce GTX 580 cards "
    "(exp/nice_cifar.yaml, of a variant of the model, and README of laurent-dinh/nice)",
)
_PIXELCNN = PublishedRow("pixelcnn", "PixelCNN", AUTOREGRESSIVE, 3.14, 3.08, PIXELRNN)
_DIAGONAL = PublishedRow("diagonal_bilstm", "Diagonal BiLSTM", AUTOREGRESSIVE, 3.00, 2.93, PIXELRNN)
_DEEP_GMM_NOTE = "Second-hand: the workshop paper's text was not obtained; layer sizes and training are unverified."

PIXELRNN_TABLE: tuple[PublishedRow, ...] = (
    PublishedRow(
        "uniform",
        "Uniform Distribution",
        CLOSED_FORM,
        8.00,
        None,
        f"log2 256, by definition; printed in {PIXELRNN}",
    ),
    PublishedRow(
        "multivariate_gaussian",
        "Multivariate Gaussian",
        CLOSED_FORM,
        4.70,
        None,
        f"printed without a recipe in {PIXELRNN}",
        "Unexplained: exact maximum likelihood is several hundredths better than the printed figure.",
    ),
    _NICE,
    PublishedRow(
        "deep_diffusion",
        "Deep Diffusion",
        DIFFUSION_FAMILY,
        4.20,
        None,
        f"{DIFFUSION}; converted by {PIXELRNN}",
        "The paper's bound is 5.4 bits per RGB pixel on data of unit variance: log2(64.150) - 5.4 / 3 = 4.203.",
        _DIFFUSION_COMPUTE,
    ),
    PublishedRow("deep_gmm", "Deep GMMs", MIXTURE, 4.00, None, f"{DEEP_GMM}; as printed in {PIXELRNN}", _DEEP_GMM_NOTE),
    PublishedRow(
        "ride",
        "RIDE",
        AUTOREGRESSIVE,
        3.47,
        None,
        f"model: Theis & Bethge (2015), NIPS, arXiv 1506.03478; figure: {PIXELRNN}",
        "Second-hand: not in the RIDE paper; the PixelRNN table credits it to personal communication.",
    ),
    _PIXELCNN,
    PublishedRow("row_lstm", "Row LSTM", AUTOREGRESSIVE, 3.07, 3.00, PIXELRNN),
    _DIAGONAL,
)

PIXELCNN_PP_TABLE: tuple[PublishedRow, ...] = (
    PublishedRow(
        "deep_diffusion",
        "Deep Diffusion",
        DIFFUSION_FAMILY,
        5.40,
        None,
        f"{DIFFUSION}; as printed in {PIXELCNN_PP}",
        "The paper's bound on the log-likelihood (5.4 bits per RGB pixel, larger is better) copied unconverted: "
        "no negative log-likelihood and not per sub-pixel. In this table's unit it is 4.20.",
        _DIFFUSION_COMPUTE,
    ),
    _NICE,
    PublishedRow(
        "draw",
        "DRAW",
        LATENT,
        4.13,
        None,
        f"model: Gregor, Danihelka, Graves, Rezende & Wierstra (2015), ICML, arXiv 1502.04623; figure: {PIXELCNN_PP}",
        "Second-hand: the DRAW paper prints no such figure for CIFAR-10; how it was computed is unverified.",
    ),
    PublishedRow(
        "deep_gmm", "Deep GMM", MIXTURE, 4.00, None, f"{DEEP_GMM}; as printed in {PIXELCNN_PP}", _DEEP_GMM_NOTE
    ),
    PublishedRow(
        "conv_draw",
        "Conv DRAW",
        LATENT,
        3.58,
        None,
        "Gregor, Besse, Jimenez Rezende, Danihelka & Wierstra (2016), NIPS, arXiv 1604.08772",
        f"A bound. As printed in {PIXELCNN_PP}; the Real NVP paper prints < 3.59.",
    ),
    PublishedRow(
        "real_nvp", "Real NVP", FLOW, 3.49, None, "Dinh, Sohl-Dickstein & Bengio (2017), ICLR, arXiv 1605.08803"
    ),
    PublishedRow("pixelcnn", "PixelCNN", AUTOREGRESSIVE, 3.14, None, PIXELRNN),
    PublishedRow(
        "vae_iaf",
        "VAE with IAF",
        LATENT,
        3.11,
        None,
        "Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling (2016), NIPS, arXiv 1606.04934",
        "Importance-weighted with 10,000 samples; the authors' code states 3.15 for the ELBO (one sample).",
        "Training command for 8 GPUs; their kind and the time are not stated (README of openai/iaf)",
    ),
    PublishedRow(
        "gated_pixelcnn",
        "Gated PixelCNN",
        AUTOREGRESSIVE,
        3.03,
        None,
        GATED,
        "Training figure 2.90, second-hand from the table of Ho, Jain & Abbeel (2020), NeurIPS, arXiv 2006.11239.",
        "60 hours on 32 GPUs, second-hand; for which data set was not verified (the paper as quoted by the author of "
        "rampage644/wavenet)",
    ),
    PublishedRow(
        "diagonal_bilstm",
        "PixelRNN",
        AUTOREGRESSIVE,
        3.00,
        None,
        PIXELRNN,
        "The best PixelRNN, that is the Diagonal BiLSTM.",
    ),
    PublishedRow(
        "pixelcnn_pp",
        "PixelCNN++",
        AUTOREGRESSIVE,
        2.92,
        None,
        PIXELCNN_PP,
        published_compute="8 Maxwell TITAN X GPUs: 3.0 after about 10 hours, about 5 days to 2.92 "
        "(README of openai/pixel-cnn)",
    ),
)


def _unpublished(key: str, name: str, family: str, note: str) -> PublishedRow:
    return PublishedRow(key, name, family, None, None, "", note)


FURTHER_ROWS: tuple[PublishedRow, ...] = (
    _unpublished("histogram_per_channel", "Histogram per channel", CLOSED_FORM, "Sub-pixels independent."),
    _unpublished("histogram_left", "Histogram given the left sub-pixel", CLOSED_FORM, "One neighbour, same channel."),
    _unpublished(
        "ridge_autoregressive",
        "Ridge autoregression",
        CLOSED_FORM,
        "Linear regression on a causal neighbourhood with discretized logistic residuals.",
    ),
    _unpublished("ppca", "Probabilistic PCA", CLOSED_FORM, "Model: Tipping & Bishop (1999), JRSS B 61."),
    _unpublished(
        "mixture_of_gaussians", "Mixture of Gaussians (EM)", MIXTURE, "EM: Dempster, Laird & Rubin (1977), JRSS B 39."
    ),
    _unpublished("vae", "VAE", LATENT, "Model: Kingma & Welling (2014), ICLR, arXiv 1312.6114."),
    _unpublished(
        "made", "MADE", AUTOREGRESSIVE, "Model: Germain, Gregor, Murray & Larochelle (2015), ICML, arXiv 1502.03509."
    ),
    _unpublished("char_rnn", "Char RNN", AUTOREGRESSIVE, "Model: Graves (2013), arXiv 1308.0850, over sub-pixels."),
    _unpublished(
        "wavenet",
        "WaveNet",
        AUTOREGRESSIVE,
        "Model: van den Oord et al. (2016), arXiv 1609.03499, over the 3,072 sub-pixels.",
    ),
    _unpublished(
        "neighbourhood",
        "Neighbourhood network",
        AUTOREGRESSIVE,
        "A small network on the causal neighbourhood of one pixel, trained on random pixels; a model of this project.",
    ),
    _unpublished(
        "hourglass",
        "Hourglass",
        AUTOREGRESSIVE,
        "A model of this project, in published parts. For comparison, exact autoregressive models of images: 2.80, "
        "Sparse Transformer (Child, Gray, Radford & Sutskever 2019, arXiv 1904.10509); 2.85, PixelSNAIL (Chen, Mishra, "
        "Rohaninejad & Abbeel 2018, ICML, arXiv 1712.09763); 2.90, Image Transformer (Parmar et al. 2018, ICML, arXiv "
        "1802.05751).",
    ),
)


def _one_row_a_model() -> dict[str, PublishedRow]:
    rows: dict[str, PublishedRow] = {}
    for row in (*PIXELRNN_TABLE, *PIXELCNN_PP_TABLE, *FURTHER_ROWS):
        rows.setdefault(row.key, row)
    return rows


# Registry key -> its row; where both tables print a model, the first table's (so Deep Diffusion is 4.20).
CATALOGUE: dict[str, PublishedRow] = _one_row_a_model()


@dataclass(frozen=True)
class Remark:
    """What a reader has to know before holding our figure against the published one."""

    title: str
    text: str


REMARKS: tuple[Remark, ...] = (
    Remark(
        "Multivariate Gaussian, 4.70: an exact solution is lower",
        "The full-covariance Gaussian has an exact maximum-likelihood solution on dequantized data: the sample mean, "
        "and the sample covariance plus 1/12 for the noise. It is several hundredths of a bit better than the printed "
        "4.70, for which no recipe was published. A ridge of about 2 squared grey levels on the covariance, or less "
        "training data, moves it towards 4.70; which of them was used, if any, is not known. The published figure is "
        "left unexplained rather than imitated.",
    ),
    Remark(
        "Deep Diffusion, 4.20 in one table and 5.40 in the other",
        "The paper prints a bound on the log-likelihood, K = 5.4 bits per RGB pixel, larger being better, of data "
        "scaled to unit variance. In this page's unit, with the deviation of CIFAR-10's grey levels, 64.150, that is "
        "log2(64.150) - 5.4 / 3 = 6.003 - 1.8 = 4.203: the 4.20 of the first table. The 5.40 of the second table "
        "agrees with the same K copied without conversion: it has the opposite sign and another unit. That it was "
        "copied is inferred from the arithmetic. Compare with 4.20. In the cpu profile the trajectory starts from the "
        "exact reverse of a full-covariance Gaussian, in its principal axes, and its first step is a hundred times "
        "finer: a better start than the paper's, so its figure does not reproduce 4.20.",
    ),
    Remark("PixelRNN", "The second table's PixelRNN is the first table's Diagonal BiLSTM: one model, one result."),
    Remark(
        "NICE, 4.48",
        "5371.78 nats on data scaled to [-1, 1]: 7 - 5371.78 / (3072 ln 2) = 4.477. A density, so ours is marked as "
        "a bound. Our whitening is that of the training images and their mirror images, and training starts at the "
        "linear model that is left without couplings, ZCA whitening with a factorised logistic, which alone is below "
        "4.48: the table of starts says how much the couplings add.",
    ),
    Remark(
        "VAE with IAF, 3.11",
        "An importance-weighted bound with 10,000 draws; its ELBO is 3.15. Ours says its own K.",
    ),
    Remark(
        "RIDE, Deep GMM, DRAW",
        "Second-hand. RIDE's 3.47 is credited to personal communication, Deep GMM's 4.00 goes back to a workshop paper "
        "that was not obtained, and how DRAW's 4.13 was computed is unverified. The settings of these three are this "
        "project's; Deep GMM and the mixture of Gaussians also whiten over mirror images.",
    ),
    Remark(
        "MADE and orderings",
        "Widely copied code averages the logits of several orderings. The result is not a distribution: its "
        "probabilities do not sum to one, and its figure is meaningless. What may be averaged is the joint probability "
        "of the whole image under each ordering; one ordering alone is exact.",
    ),
    Remark(
        "No published figure",
        "The histograms, the ridge regression, PPCA, the mixture of Gaussians, VAE, MADE, char RNN, WaveNet, the "
        "neighbourhood network and the hourglass have no published CIFAR-10 figure in this unit that these tables "
        "could print. They are there for comparison.",
    ),
)

# Models whose parameters before the first step are those of a simpler model -> that model.
STARTS: dict[str, str] = {
    "nice": "ZCA whitening with a factorised logistic",
    "made": "linear regression on the sub-pixels nearby",
    **dict.fromkeys(
        ("pixelcnn", "gated_pixelcnn", "row_lstm", "diagonal_bilstm", "wavenet"),
        "with num_start_images: a regression on the neighbourhood, with a logistic as wide as errors nearby",
    ),
    "ride": "a linear predictor of each pixel, fitted to its neighbourhood, with a scale mixture of what it leaves",
    "neighbourhood": "a linear predictor of each pixel, with a mixture of several widths around it",
    "hourglass": "a linear predictor of each pixel, with a mixture of several widths around it",
    "vae": "probabilistic PCA of patches",
    "vae_iaf": "with has_linear_start: probabilistic PCA of patches",
    "draw": "with has_linear_start: probabilistic PCA of patches",
    "conv_draw": "with has_linear_start: probabilistic PCA of patches",
    "deep_diffusion": "with has_linear_start: the multivariate Gaussian, taken backwards in time",
}
