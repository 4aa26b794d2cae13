"""Types of method fields, with the ranges a recipe is checked against when it is built."""

from typing import Annotated

from pydantic import Field

Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # factor of a penalty; 0 switches it off
Share = Annotated[float, Field(ge=0, le=1)]  # part of a whole
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # divides log-probabilities
Count = Annotated[int, Field(ge=0)]  # a number of rows
Positive = Annotated[int, Field(ge=1)]  # a number that cannot be none
