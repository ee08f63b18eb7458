"""The kinds of values that records hold, each with the range outside which a value is no measurement."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from dgm.types import NUM_TEST_IMAGES, NUM_TRAIN_IMAGES

LARGEST_BITS = 10000.0  # per sub-pixel: 8 is a uniform guess, so a figure beyond this is no measurement
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"  # nor marks that turn a line around

Line = Annotated[str, Field(max_length=500, pattern=ONE_LINE)]
Text = Annotated[str, Field(min_length=1, max_length=500, pattern=ONE_LINE)]
LineOrEmpty = Annotated[Line, BeforeValidator(lambda value: "" if value is None else value)]  # an empty CSV field
Bits = Annotated[float, Field(ge=0.0, le=LARGEST_BITS)]
PositiveBits = Annotated[float, Field(gt=0.0, le=LARGEST_BITS)]
Term = Annotated[float, Field(ge=-LARGEST_BITS, le=LARGEST_BITS)]
Seconds = Annotated[float, Field(ge=1e-9, le=1e9)]
Count = Annotated[int, Field(ge=0, le=10**18)]
PositiveCount = Annotated[int, Field(gt=0, le=10**18)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NumTestImages = Annotated[int, Field(gt=0, le=NUM_TEST_IMAGES)]
NumTrainImages = Annotated[int, Field(gt=0, le=NUM_TRAIN_IMAGES)]
Likelihood = Annotated[str, Field(pattern=r"^(exact|dequantized|elbo|importance-weighted \([1-9][0-9]*\))$")]
