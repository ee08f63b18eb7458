"""The catalogue against the lecture's tables, typed here a second time."""

from __future__ import annotations

import re

from dgm.registry import MODELS
from dgm.reporting.published import CATALOGUE, FURTHER_ROWS, PIXELCNN_PP_TABLE, PIXELRNN_TABLE


def test_the_pixelrnn_table_is_the_lectures() -> None:
    assert [(row.key, row.name, row.published_test, row.published_train) for row in PIXELRNN_TABLE] == [
        ("uniform", "Uniform Distribution", 8.00, None),
        ("multivariate_gaussian", "Multivariate Gaussian", 4.70, None),
        ("nice", "NICE", 4.48, None),
        ("deep_diffusion", "Deep Diffusion", 4.20, None),
        ("deep_gmm", "Deep GMMs", 4.00, None),
        ("ride", "RIDE", 3.47, None),
        ("pixelcnn", "PixelCNN", 3.14, 3.08),
        ("row_lstm", "Row LSTM", 3.07, 3.00),
        ("diagonal_bilstm", "Diagonal BiLSTM", 3.00, 2.93),
    ]


def test_the_pixelcnn_pp_table_is_the_lectures() -> None:
    assert [(row.key, row.name, row.published_test) for row in PIXELCNN_PP_TABLE] == [
        ("deep_diffusion", "Deep Diffusion", 5.40),
        ("nice", "NICE", 4.48),
        ("draw", "DRAW", 4.13),
        ("deep_gmm", "Deep GMM", 4.00),
        ("conv_draw", "Conv DRAW", 3.58),
        ("real_nvp", "Real NVP", 3.49),
        ("pixelcnn", "PixelCNN", 3.14),
        ("vae_iaf", "VAE with IAF", 3.11),
        ("gated_pixelcnn", "Gated PixelCNN", 3.03),
        ("diagonal_bilstm", "PixelRNN", 3.00),
        ("pixelcnn_pp", "PixelCNN++", 2.92),
    ]


def test_every_published_figure_has_a_source_and_no_other_row_has_one() -> None:
    for row in (*PIXELRNN_TABLE, *PIXELCNN_PP_TABLE, *FURTHER_ROWS):
        assert bool(row.published_source) == (row.published_test is not None), row.key


def test_what_is_said_of_a_published_training_names_its_place_and_is_the_same_in_both_tables() -> None:
    for row in (*PIXELRNN_TABLE, *PIXELCNN_PP_TABLE, *FURTHER_ROWS):
        assert row.published_compute == CATALOGUE[row.key].published_compute
        if row.published_compute:
            assert row.published_test is not None and row.published_compute.isascii()
            assert re.search(r"\(.*(README of|quoted by).*\)$", row.published_compute), row.key
    known = {key for key, row in CATALOGUE.items() if row.published_compute}
    assert known == {"nice", "deep_diffusion", "vae_iaf", "gated_pixelcnn", "pixelcnn_pp"}
    assert "5 days to 2.92" in CATALOGUE["pixelcnn_pp"].published_compute


def test_one_row_a_model_takes_the_converted_diffusion_figure() -> None:
    assert CATALOGUE["deep_diffusion"].published_test == 4.20
    assert CATALOGUE["diagonal_bilstm"].name == "Diagonal BiLSTM"


def test_every_registered_model_has_one_row() -> None:
    assert set(MODELS) == set(CATALOGUE)
