"""Training settings: a recipe without its methods."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perdure.core.fields import LARGEST, MANY

LATER = (  # settings that were added after the first recipes were recorded
    *("gradient_checkpointing", "packing"),
    *("max_steps", "eval_steps", "early_stopping_patience"),
    *("optim", "optim_args", "lr_scheduler_kwargs", "warmup_ratio", "train_on", "use_rslora"),
)
NO_SUM = (
    "the adapters of tasks are summed, frozen under each other and exported as one, which takes plain low-rank factors"
)
OWN_TOKENS = "write new words in the tokens that the model has"
REJECTED = {  # what other tools train, and why a recipe does not
    "use_dora": f"{NO_SUM}, and DoRA's magnitudes are none; use plain LoRA, with a higher lora_r or use_rslora",
    "modules_to_save": f"{NO_SUM}, and whole modules are none; name layers in lora_target_modules, or set train: full",
    "trainable_token_indices": f"{NO_SUM}, and rows of the embedding are none; {OWN_TOKENS}",
    "resize_token_embeddings": f"the base model is never written, so its tokenizer gets no new tokens; {OWN_TOKENS}",
}
REJECTED |= dict.fromkeys(("new_tokens", "add_tokens", "added_tokens"), REJECTED["resize_token_embeddings"])


class Settings(BaseModel):
    """Training settings, under the names Hugging Face and TRL use."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float = Field(1e-3, gt=0, le=100, description="peak learning rate")
    num_train_epochs: int = Field(3, ge=1, le=100_000, description="passes over the new rows")
    max_steps: int = Field(
        -1, ge=-1, le=MANY, description="updates in all, in the place of num_train_epochs; -1 or 0 goes by the epochs"
    )
    per_device_train_batch_size: int = Field(
        16, ge=1, le=65_536, description="new rows per micro-batch; replayed rows are added"
    )
    gradient_accumulation_steps: int = Field(1, ge=1, le=65_536, description="micro-batches per update")
    gradient_checkpointing: bool = Field(
        False,
        description="store the inputs of the model's blocks alone, and compute the rest again in the backward: less memory, more "
        "time, the same update up to rounding",
    )
    packing: bool = Field(
        True,
        description="let short rows share a line of a batch, each seeing itself alone, where that saves a tenth of the tokens: "
        "the same update up to rounding, in less time",
    )
    max_grad_norm: float = Field(1.0, ge=0, le=LARGEST, description="clip the gradient to this norm; 0 does not clip")
    weight_decay: float = Field(
        0.0, ge=0, le=100, description="weight decay, decoupled where the optimizer has it so, as AdamW"
    )
    optim: str = Field(
        "adamw_torch",
        description="optimizer by its name in transformers: adamw_torch, adamw_torch_fused, sgd, adafactor, adagrad, rmsprop, "
        "adamw_8bit, lion_8bit, ... (those in 8 bits and lion need bitsandbytes)",
    )
    optim_args: str = Field("", description="arguments of the optimizer, as momentum=0.9,nesterov=True")
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
        "reduce_lr_on_plateau",
        "greedy",
    ] = Field("linear", description="learning rate after warm-up, by its name in transformers")
    lr_scheduler_kwargs: dict[str, bool | int | float | str] = Field(
        {}, description="arguments of the schedule, as {num_cycles: 2} for cosine_with_restarts"
    )
    warmup_steps: float = Field(0.0, ge=0, le=MANY, description="updates of warm-up; below 1, a share of all updates")
    warmup_ratio: float = Field(
        0.0, ge=0, lt=1, description="share of all updates that warm up; a warmup_steps below 1"
    )
    train_on: Literal["completion", "last_turn", "all"] = Field(
        "completion",
        description="which tokens have a loss: every answer of a row, the last one alone, or its prompts too; turns with "
        "train: false never have one",
    )
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1, description="label smoothing of the task loss")
    max_length: int = Field(
        512,
        ge=8,
        le=MANY,
        description="tokens per row; longer prompts lose their start. The default is lowered to the positions that a model has; "
        "another value beyond them is an error",
    )
    train: Literal["lora", "full", "none"] = Field(
        "lora",
        description="train a LoRA adapter, every weight in float32, or nothing, where a method answers from the untrained model "
        "(slda)",
    )
    lora_r: int = Field(8, ge=1, le=65_536, description="LoRA rank, at most the width of the model")
    lora_alpha: float = Field(16.0, gt=0, le=1e6, description="LoRA scale is lora_alpha / lora_r")
    use_rslora: bool = Field(False, description="LoRA scale is lora_alpha / sqrt(lora_r), for high ranks")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before LoRA's down-projection")
    lora_target_modules: str | list[str] = Field(
        "all-linear",
        description="modules that get an adapter: their names, `all-linear`, or `mlp-linear` for those of the MLP (and experts); "
        "all where a model has neither",
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="the weights at the end, or the best of all validations by their loss on validation rows. What is validated "
        "is what the recipe would store if it ended there: the average where a method makes one (tail_average, ema, wise_ft)",
    )
    eval_steps: float = Field(
        0.0,
        ge=0,
        le=MANY,
        description="updates between two validations, and the last update is validated too; below 1 a share of all updates; 0 "
        "validates after each epoch if keep is best, else never",
    )
    early_stopping_patience: int = Field(
        0,
        ge=0,
        le=MANY,
        description="stop after so many validations in a row without a new lowest loss; 0 does not stop; needs keep: best",
    )
    validation_share: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="share of train rows that are held out for validation where the task has no validation rows",
    )
    memory_per_label: int = Field(
        2, ge=0, le=MANY, description="rows stored of each label, for methods that draw from memory"
    )
    memory_per_task: int = Field(100, ge=0, le=MANY, description="rows stored of a task without labels")
    memory_size: int = Field(
        5000, ge=0, le=MANY, description="rows in memory in total; the largest groups lose rows first"
    )
    data: Literal["task", "all"] = Field("task", description="train on the new task, or on all stored tasks together")
    start: Literal["head", "base"] = Field(
        "head",
        description="go on from head, or start again from the base model: what all tasks share is begun anew, or, where the task "
        "trains an adapter of its own, that adapter alone",
    )
    host: Literal["transformers", "loop"] = Field("transformers", description="what runs the training loop")
    logging_steps: int = Field(10, ge=1, le=LARGEST, description="updates between loss records and heartbeats")
    report_to: str | list[str] = Field(
        "none",
        description="experiment trackers by the names of transformers, with commas between them; none, or all that "
        "are installed",
    )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON.

        A setting that was added later is left out at its default: the JSON is hashed into the ids of entries, which are fixed.
        """
        plain = self.model_dump(mode="json")
        defaults = type(self).model_fields
        return {name: value for name, value in plain.items() if name not in LATER or value != defaults[name].default}

    @property
    def validates(self) -> bool:
        """Whether weights are validated while they are trained."""
        return self.keep == "best" or self.eval_steps > 0

    def epochs(self, rows: int) -> int:
        """Return the passes over `rows` new rows that are begun; the last may end before its end, by `max_steps`.

        It is 0 where nothing is trained.
        """
        if self.train == "none":
            return 0
        if self.max_steps <= 0:
            return self.num_train_epochs
        batches = -(-rows // self.per_device_train_batch_size)
        return -(-self.max_steps // max(-(-batches // self.gradient_accumulation_steps), 1))

    @property
    def lora_scale(self) -> float:
        """Factor of the product of LoRA's factors."""
        return self.lora_alpha / (self.lora_r**0.5 if self.use_rslora else self.lora_r)

    def warmup_updates(self, total: int) -> float:
        """Return how many of `total` updates warm up; a part of an update counts as it is."""
        share = self.warmup_ratio or (self.warmup_steps if self.warmup_steps < 1 else 0.0)
        return share * total or self.warmup_steps

    @property
    def trackers(self) -> list[str]:
        """Names of the trackers; empty for none."""
        named = self.report_to.split(",") if isinstance(self.report_to, str) else self.report_to
        return [name for one in named if (name := one.strip()) != "none"]

    @field_validator("report_to")
    @classmethod
    def _trackers(cls, value: str | list[str]) -> str | list[str]:
        named = [one.strip() for one in (value.split(",") if isinstance(value, str) else value)]
        if not all(named):
            raise ValueError("name each tracker, or write none")
        if len(named) > 1 and (alone := {"none", "all"} & set(named)):
            raise ValueError(f"{min(alone)} must be the only name; drop it, or the others")
        return value

    @field_validator("lora_target_modules")
    @classmethod
    def _some_modules(cls, value: str | list[str]) -> str | list[str]:
        if not value or not all(name.strip() for name in ([value] if isinstance(value, str) else value)):
            raise ValueError("name each module, or write all-linear or mlp-linear")
        return value

    @field_validator("eval_steps")
    @classmethod
    def _whole_updates(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("from 1 on it is a whole number of updates")
        return value

    @model_validator(mode="after")
    def _one_warm_up(self) -> "Settings":
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("warmup_ratio and warmup_steps both name the warm-up; drop one of them")
        return self

    @model_validator(mode="after")
    def _stops_at_the_best(self) -> "Settings":
        if self.early_stopping_patience and self.keep != "best":
            raise ValueError(
                "early_stopping_patience stops some validations after the best weights, and keep: last would store those at the "
                "stop; set keep: best"
            )
        return self

    @model_validator(mode="after")
    def _tracked(self) -> "Settings":
        if self.host == "loop" and self.trackers:
            raise ValueError("host: loop reports to no tracker; set report_to: none, or host: transformers")
        return self
