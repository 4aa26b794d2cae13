"""Experiment trackers: whether those that a recipe names are known to transformers, and installed."""

from collections.abc import Sequence

from perdure.core.errors import BadSpec
from perdure.core.recipe import nearest

PACKAGES = {  # what pip calls them, where it is another name
    "azure_ml": "azureml-core azureml-mlflow",
    "flyte": "flytekit flytekitplugins-deck-standard",
}


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse trackers that transformers would fail to set up, which it does after the model was loaded.

    Args:
        names: As `TrainingArguments.report_to` takes them; "all" means those that are installed.

    Raises:
        BadSpec: One is not known (the nearest known one is named), or not installed.
    """
    if not set(names) - {"all"}:
        return
    from transformers import integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = {"all": True, "none": True}
    for name in INTEGRATION_TO_CALLBACK:
        is_there = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}.get(name, name)
        known[name] = bool(getattr(integrations, f"is_{is_there}_available")())
    for name in names:
        if name not in known:
            raise BadSpec(f"report_to: no tracker {name!r}{nearest(name, list(known))}")
        if not known[name]:
            raise BadSpec(f"report_to: {name} is not {_there(name)}, or set report_to: none")


def _there(name: str) -> str:
    if name == "kubeflow":
        return "there, as this is no job of Kubeflow's trainer; run it as one"
    return f"installed; 'pip install {PACKAGES.get(name, name)}'"
