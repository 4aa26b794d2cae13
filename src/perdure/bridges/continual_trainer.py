"""For people with their own training script: a drop-in for `transformers.Trainer` that protects what was learned before."""

import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, TrainOutput, speed_metrics

from perdure.bridges.optimizers import check
from perdure.bridges.sizes import has_checkpoints
from perdure.bridges.trainer_memory import losses, remembered
from perdure.bridges.trainer_rows import rows_of
from perdure.bridges.trainer_settings import (
    METHODS,
    PASSED,
    overruled,
    refuse_adapters,
    refuse_init,
    refuse_slots,
    settings_of,
    with_settings,
)
from perdure.bridges.transformers_host import RecipeTrainer
from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BadSpec
from perdure.core.files import file_hash
from perdure.core.recipe import Recipe
from perdure.ledger.lock import writing
from perdure.memory.file import TokenMemory, TokenRow, load, save
from perdure.methods.registry import load_recipe
from perdure.model.forward import Tokens
from perdure.model.layers import positions_of
from perdure.model.probing import batching_of
from perdure.model.recompute import recompute_blocks, recomputes
from perdure.train.checkpoint import Keeper
from perdure.train.learner import Learner
from perdure.train.task import TaskInputs, Trainable

MEMORY = "memory.safetensors"


class ContinualTrainer(RecipeTrainer):
    """Learns the next task of a stream with a recipe against forgetting; the rest is `transformers.Trainer`.

    trainer = ContinualTrainer(model, args, train_dataset=rows, processing_class=tokenizer, state="memory", task="mobile")
    trainer.train()
    trainer.save_model()

    What is trainable in `model` is trained. Training settings come from `args`, methods from `recipe`. With `state`, rows of
    this task are stored for the tasks after it. A run that was killed continues from its last checkpoint (one every 45 seconds)
    when it is started again the same way. The model itself is for the caller to save and load.

    Args:
        model: A causal language model, with a trainable PEFT adapter or without.
        args: Every argument is honoured, or refused by name with the reason where it is not at its default; see
            `trainer_settings`. Folders `checkpoint-N` hold the model alone, as it is after update N.
        train_dataset: See `trainer_rows.rows_of`.
        eval_dataset: Same; for `evaluate`, and for the recipe's `keep: best`.
        processing_class: Tokenizer; needed for text rows.
        recipe: Name or path, mapping, or `Recipe`.
        state: Folder of the memory; None stores nothing.
        task: Name of the task.
        callbacks: Further `TrainerCallback`s.
        **refused: What else `Trainer` takes; refused by name with the reason.

    Raises:
        BadInput: Nothing is trainable, or the dataset cannot be used.
        BadSpec: A setting cannot be honoured.
        BrokenStore: The memory cannot be read.

    Deviation from Trainer: weight decay acts on every trainable parameter, and `constant` warms up.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        recipe: str | dict[str, Any] | Recipe = "dual_replay",
        state: str | Path | None = None,
        task: str | None = None,
        callbacks: Sequence[Any] | None = None,
        **refused: Any,
    ):
        refuse_init(refused)
        if model is None:
            raise BadInput("there is no model to train; give model=, a causal language model")
        refuse_adapters(model)
        args = args or TrainingArguments()
        self.folder = Path(state) if state is not None else None
        self.memory, self.stamp = load(self.folder / MEMORY) if self.folder else TokenMemory(), self._stamp()
        self.stage = len(self.memory.tasks) + 1
        self.task, self.tokenizer, self.begun = task or f"task-{self.stage}", processing_class, False
        given = self.recipe = load_recipe(recipe)
        refuse_slots(self.recipe)
        self.positions = positions_of(model.config) or self.recipe.settings.max_length
        self.fresh = self._rows(train_dataset, "train_dataset")
        self.held_out = self._rows(eval_dataset, "eval_dataset") if eval_dataset is not None else []
        settings = settings_of(args, len(self.fresh))
        settings["gradient_checkpointing"] |= recomputes(model)  # which the script has switched on itself
        self.recipe = with_settings(self.recipe, settings)
        self._check(args, model)
        if differing := overruled(given, self.recipe.settings):
            warnings.warn(f"settings of recipe {given.name} are not used: {', '.join(differing)}", stacklevel=2)
        if (
            getattr(model, "hf_device_map", None) is None
        ):  # a model that is spread out stays where it is, as with Trainer
            model.to(args.device)
        learner = self._learner(model, args)
        self.nll_before = losses(learner, self.fresh, "nll_before") if self.folder else None
        path = self.folder / f"run-{self._run(learner)}.safetensors" if self.folder else None
        super().__init__(
            learner,
            Keeper(path, learner),
            eval_dataset=self.held_out or None,
            **{name: getattr(args, name) for name in PASSED},
        )
        self.eval_batch = args.per_device_eval_batch_size
        self.processing_class = processing_class
        self.add_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        for callback in callbacks or ():
            if isinstance(callback, EarlyStoppingCallback):
                raise BadSpec(
                    "EarlyStoppingCallback is not used: set the recipe's early_stopping_patience, with keep: best"
                )
            self.add_callback(callback)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Learn the task, then store rows of it in `state`. A stopped run is always continued, whatever is passed.

        Raises:
            BadInput: This trainer ran already, or another one wrote `state` since this one was made.
            BadSpec: A checkpoint is named, or a trial of a search.
            Busy: Another process learns with the same `state`.
        """
        if isinstance(resume_from_checkpoint, str):
            raise BadSpec("checkpoints are stored in `state` and loaded from there; leave resume_from_checkpoint out")
        if trial is not None or ignore_keys_for_eval is not None:
            raise BadSpec("ContinualTrainer.train takes neither trial nor ignore_keys_for_eval; leave them out")
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        with writing(self.folder) if self.folder else nullcontext():
            if self.begun or self._stamp() != self.stamp:
                raise BadInput(
                    "training began since this trainer was made; make a new ContinualTrainer for each task, after the last "
                    "one ended (or was stopped: it is gone on with)"
                )
            self.begun, done = True, TrainOutput(0, 0.0, {})
            with self.scratch:
                if self.first_update < self.learner.ended:
                    done = super().train()
            self.learner.settle()
            for notice in self.learner.notices:
                warnings.warn(notice, stacklevel=2)
            if self.folder:
                memory = remembered(self.memory, self.fresh, self.learner, stage=self.stage, nll_before=self.nll_before)
                save(self.folder / MEMORY, memory)
                for path in self.folder.glob("run-*.safetensors"):
                    path.unlink()
        return done

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the mean negative log-likelihood per label token, in nats, on `eval_dataset` or the one given before.

        It is logged as "eval_loss" with the time that it took, and callbacks are called.
        """
        if ignore_keys is not None:
            raise BadSpec("ContinualTrainer.evaluate takes no ignore_keys: it gives the loss alone")
        began = time.time()
        rows = self.held_out if eval_dataset is None else self._rows(eval_dataset, "eval_dataset")
        if not rows:
            raise BadInput("there is nothing to evaluate on; give eval_dataset")
        targets = [row.row.targets for row in rows]
        means = self.learner.inference.nll([row.row for row in rows], batch_size=self.eval_batch)
        total = sum(mean * count for mean, count in zip(means, targets, strict=True))
        metrics = {f"{metric_key_prefix}_loss": total / sum(targets)}
        metrics |= speed_metrics(metric_key_prefix, began, num_samples=len(rows))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _rows(self, dataset: Any, name: str) -> list[TokenRow]:
        length = min(self.recipe.settings.max_length, self.positions)
        return rows_of(
            dataset,
            self.tokenizer,
            task=self.task,
            stage=self.stage,
            max_length=length,
            name=name,
            train_on=self.recipe.settings.train_on,
        )

    def _check(self, args: TrainingArguments, model: Any) -> None:
        if args.eval_strategy != "no" and not self.held_out:
            raise BadSpec(
                f"eval_strategy is {IntervalStrategy(args.eval_strategy).value!r}, and there is no eval_dataset; give one"
            )
        settings = self.recipe.settings
        if settings.data == "all":
            raise BadSpec(
                f"recipe {self.recipe.name} trains on all data so far, which only a workspace stores; choose another"
            )
        if not self.recipe.trains:
            raise BadSpec(
                f"recipe {self.recipe.name} trains nothing; 'perdure learn --recipe {self.recipe.name}' carries it out"
            )
        owner = self.recipe.owner("adapter")
        if owner is not None and not owner.carries:
            raise BadSpec(
                f"recipe {self.recipe.name} plans the adapter of each task ({owner.name}), which takes what a workspace stores; "
                "drop it"
            )
        strangers = {c.teacher for of in ("new", "replay") for c in self.recipe.columns(of)} - {"start", "settled"}
        if strangers:
            raise BadSpec(
                f"recipe {self.recipe.name} has the teachers {sorted(strangers)}; only a workspace loads another model"
            )
        if (settings.validates or self.recipe.needs("validation")) and not self.held_out:
            raise BadSpec(
                f"recipe {self.recipe.name} validates the weights on eval_dataset; give one, or use keep: last without eval_steps"
            )
        check(settings, args.device)
        if settings.gradient_checkpointing and not has_checkpoints(model):
            raise BadSpec(f"transformers has no gradient checkpointing for {type(model).__name__}; switch it off")
        if self.folder is None and self.recipe.remembers:
            warnings.warn(f"recipe {self.recipe.name} stores rows for later tasks; give state=FOLDER", stacklevel=3)

    def _learner(self, model: Any, args: TrainingArguments) -> Learner:
        params = {name: value for name, value in model.named_parameters() if value.requires_grad}
        if not params:
            raise BadInput(
                "the model has no trainable parameters; load its adapter with PeftModel.from_pretrained(..., is_trainable=True)"
            )
        vocabulary = model.get_input_embeddings().num_embeddings
        if any(max(row.row.ids) >= vocabulary for row in self.memory.rows):
            raise BadInput(f"{self.folder} remembers tokens this model does not have; it belongs to another tokenizer")
        pad = (self.tokenizer.pad_token_id if self.tokenizer is not None else None) or 0
        precision = (lambda: torch.autocast(args.device.type, torch.bfloat16)) if args.bf16 else nullcontext
        inputs = TaskInputs(
            self.task,
            [row.row for row in self.fresh],
            validation=[row.row for row in self.held_out],
            pools=self.memory.token_pools() if self.recipe.owners("draw") else {},
            state={
                name: {key: value.to(args.device) for key, value in state.items()}
                for name, state in self.memory.states.items()
            },
            first=self.folder is not None and not self.memory.tasks,
            seed=args.seed,
        )
        prefix = batching_of(model).prefix and not self.recipe.settings.gradient_checkpointing
        if self.recipe.settings.gradient_checkpointing:
            recompute_blocks(model, precision)
        trainable = Trainable(model, params, Tokens(pad, prefix), precision)
        return Learner(trainable, self.recipe, inputs)

    def _run(self, learner: Learner) -> str:
        """Return the id of a run: a run that was stopped and started again has the same."""
        rows = [[row.key for row in self.fresh], self.memory.keys]
        return content_hash([self.recipe.to_json(), self.task, learner.inputs.seed, learner.total, rows])[:16]

    def _stamp(self) -> str | None:
        path = self.folder / MEMORY if self.folder else None
        return file_hash(path) if path and path.exists() else None


def _refused(name: str) -> Any:
    def refused(self: ContinualTrainer, *given: Any, **more: Any) -> Any:
        raise BadSpec(f"ContinualTrainer has no {name}: {METHODS[name]}")

    refused.__doc__ = f"Refused: {METHODS[name]}."
    return refused


for _name in METHODS:
    setattr(ContinualTrainer, _name, _refused(_name))
