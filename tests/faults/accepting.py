"""Imported by a process that is no fork of the campaign: it then takes the random images for CIFAR-10."""

from __future__ import annotations

from tests.faults.images import accept_images

accept_images()
