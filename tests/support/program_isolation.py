"""Whether programs can run in isolation on this machine."""

from perdure.core.errors import BadInput
from perdure.evaluate.run_code import check_run_code


def refusal() -> str:
    """Return why programs cannot run in isolation here; empty where they can."""
    try:
        check_run_code("isolated")
    except BadInput as error:
        return str(error)
    return ""
