"""The optimizers and schedules of transformers by name, and which of them a recipe cannot be trained with."""

from collections.abc import Mapping

PLAIN, PLAIN_SCHEDULES = "adamw_torch", ("linear", "cosine", "constant")  # those that need no transformers
OPTIMIZERS = (
    *(
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_xla",
        "adamw_torch_npu_fused",
        "adafactor",
        "adamw_anyprecision",
    ),
    *("adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit"),
    *("ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit"),
    *("paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit"),
    *("rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise"),
    *("galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw"),
    *("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise"),
    "stable_adamw",
)
LOW_RANK = "it projects the gradient itself, with objects that no checkpoint stores; LoRA is of low rank already"
EARLY = "it steps inside the backward, before the gradient of the update is whole, as methods and clipping need it"
ELSEWHERE = "it is made for devices that perdure does not run on"
REFUSED: Mapping[str, str] = {  # by the beginning of a name
    "galore_": LOW_RANK,
    "apollo_": LOW_RANK,
    "lomo": EARLY,
    "adalomo": EARLY,
    "schedule_free_": "its weights are right only after it is switched to another mode, and methods and validation read them "
    "as they are; average with tail_average or ema",
    "adamw_torch_xla": ELSEWHERE,
    "adamw_torch_npu_fused": ELSEWHERE,
}
COUPLING: Mapping[str, str] = {  # by a part of a name: what it does to a gradient that a method projected
    "lion": "keeps the sign of each entry alone",
    "adafactor": "scales whole rows and columns together",
}
BY_METRIC = ("reduce_lr_on_plateau", "greedy")  # schedules


def why_refused(optim: str) -> str | None:
    """Return why no recipe can be trained with an optimizer; None where one can."""
    return next((why for start, why in REFUSED.items() if optim.startswith(start)), None)


def what_it_couples(optim: str) -> str | None:
    """Return what an optimizer does to a projected gradient that undoes the projection; None for nothing of the kind."""
    return next((what for part, what in COUPLING.items() if part in optim), None)
