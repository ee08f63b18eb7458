"""Tests compute under the settings that the stages compute under, on one thread each: torch reads both once."""

import os

import stages as _settings_before_torch  # noqa: F401

os.environ["OMP_NUM_THREADS"] = "1"
