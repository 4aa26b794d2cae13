"""Names of devices in commands and calls. `bridges.models.choose_device` checks whether this machine has the device."""

import re

from perdure.core.errors import BadInput
from perdure.core.values import shown

ANY = "auto"  # the accelerator where there is one, else the CPU


def check_name(name: str) -> str:
    """Return the name of a device.

    Raises:
        BadInput: No device has this name.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
        raise BadInput(f"unknown device {shown(name)}; choose auto, cpu, cuda, cuda:N (such as cuda:0) or mps")
    return name
