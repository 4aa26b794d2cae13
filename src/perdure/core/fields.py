"""Types of method fields, with the ranges that a method is checked against when it is made."""

from typing import Annotated

from pydantic import Field

LARGEST = 10**9  # of a factor: beyond it float32 has no digits left for the loss
MANY = 10**7  # of rows or log-probabilities: no memory holds more

Strength = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]  # factor of a penalty; 0 switches it off
Share = Annotated[float, Field(ge=0, le=1)]  # part of a whole
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]  # part of a whole that leaves something of it
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]  # what is divided by, or a largest value
Temperature = Annotated[float, Field(gt=1e-4, le=LARGEST, allow_inf_nan=False)]  # divides log-probabilities
Count = Annotated[int, Field(ge=0, le=MANY)]  # a number of rows
Positive = Annotated[int, Field(ge=1, le=MANY)]  # a number that cannot be none
