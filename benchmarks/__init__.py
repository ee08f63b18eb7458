"""Speeds, not likelihoods: what runs here computes under the settings that the stages compute under."""

import stages as _settings_before_torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
