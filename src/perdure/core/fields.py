"""Types of method fields, with the ranges that a method is checked against when it is made."""

from typing import Annotated

from pydantic import Field

Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # factor of a penalty; 0 switches it off
Share = Annotated[float, Field(ge=0, le=1)]  # part of a whole
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]  # part of a whole that leaves something of it
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # what is divided by, or a largest value
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # divides log-probabilities
Count = Annotated[int, Field(ge=0)]  # a number of rows
Positive = Annotated[int, Field(ge=1)]  # a number that cannot be none
