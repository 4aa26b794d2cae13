"""The production host: a `transformers.Trainer` that runs the updates of a `Learner`.

Trainer brings devices, trackers and progress. What an update means is in `train/learner.py` and `train/update.py`, shared with
the reference loop, and a test checks that both are equal to the bit. Batches, draws and losses never pass through Trainer's own
data path, because a callback sees neither batch nor loss, and a collator does not know the update.
"""

import tempfile
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from perdure.bridges.optimizers import make_optimizer, make_schedule
from perdure.bridges.trackers import Tracking
from perdure.core.errors import BadSpec
from perdure.core.launcher import without_launcher
from perdure.train.checkpoint import Keeper
from perdure.train.learner import Learner
from perdure.train.loop import Progress
from perdure.train.optimizer import clip
from perdure.train.update import Update

TOLD = (  # settings that trackers and callbacks read from the arguments; the optimizer and its schedule are made here
    *("learning_rate", "weight_decay", "max_grad_norm", "lr_scheduler_type", "warmup_steps", "label_smoothing_factor"),
    *("num_train_epochs", "per_device_train_batch_size", "logging_steps"),
)


class Updates(Dataset):
    """The updates of an epoch; the rows of each are drawn when it begins."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class RecipeTrainer(Trainer):
    """Runs a `Learner` under transformers.

    Steps, epochs, rows and tokens that Trainer logs are those of the whole learn, wherever it goes on from.

    Args:
        learner: What to learn.
        keeper: Its checkpoint.
        progress: Called after every update.
        eval_dataset: What Trainer wants to see before it calls `evaluate` while it trains.
        **options: Further `TrainingArguments`.
    """

    def __init__(
        self,
        learner: Learner,
        keeper: Keeper,
        progress: Progress | None = None,
        eval_dataset: Any = None,
        **options: Any,
    ):
        settings = learner.recipe.settings
        self.learner, self.last_loss = learner, 0.0
        self.open_update: Update | None = None
        optimizer = make_optimizer(learner.params.values(), settings)
        self.first_update = keeper.resume(optimizer)
        schedule = make_schedule(optimizer, settings, learner.total, self.first_update)
        self.epoch_updates = min(learner.epoch_ends, default=0) + 1
        self.scratch = tempfile.TemporaryDirectory(prefix="perdure-trainer-")
        chosen = {
            "output_dir": self.scratch.name,
            "max_steps": learner.total,
            **{name: getattr(settings, name) for name in TOLD},
            "logging_strategy": "steps" if settings.trackers else "no",
            "logging_nan_inf_filter": False,
            "report_to": settings.trackers or "none",
            "save_strategy": "no",
            "save_only_model": True,  # methods' state and the optimizer's are in the keeper's checkpoint
            "use_cpu": next(iter(learner.params.values())).device.type == "cpu",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
        }
        args = TrainingArguments(**{**chosen, **options})
        _ = args.device  # which counts the GPUs that it sees
        args._n_gpu = 1  # else Trainer takes a batch for each, and copies the model to each
        super().__init__(
            model=learner.model,
            args=args,
            train_dataset=Updates(self.epoch_updates),
            eval_dataset=eval_dataset,
            data_collator=_only,  # type: ignore[arg-type]
            optimizers=(optimizer, schedule),
            callbacks=[_Closing(self, keeper, progress)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if self.args.world_size > 1:
            raise BadSpec(
                f"this host runs one process, and {self.args.world_size} were launched; start perdure without a launcher"
            )

    def get_train_dataloader(self) -> DataLoader:
        """Return the updates of an epoch, one at a time, in order."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=_only)  # type: ignore[arg-type]

    def _init_training_state(self, *given: Any, **more: Any) -> tuple[int, int]:
        """Begin where the checkpoint ends."""
        super()._init_training_state(*given, **more)
        self.state.global_step = self.first_update
        self.state.num_input_tokens_seen = self.learner.record.tokens
        self.state.num_train_epochs = -(-self.learner.total // self.epoch_updates)
        return self.first_update // self.epoch_updates, 0

    def _run_epoch(self, *given: Any, **more: Any) -> None:
        """Run what is left of an epoch."""
        if more["epoch"] == self.first_update // self.epoch_updates:
            more["num_update_steps_per_epoch"] -= self.first_update % self.epoch_updates
        super()._run_epoch(*given, **more)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        """Count the new rows that were trained on since this run began."""
        done = self.learner.updates[self.first_update : self.state.global_step]
        rows = sum(len(batch) for update in done for batch in update)
        share = len(done) / max(self.state.max_steps, 1)  # of all updates, by which Trainer multiplies
        return super()._finalize_training(trial, rows / share if share else 0, start_time)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Leave the tokens to `_Closing`: `inputs` is the number of an update."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one whole update: forwards, backwards, and what methods make of the gradient. Trainer then clips and steps."""
        model.train()
        self.open_update = self.learner.update(inputs)
        self.last_loss = self.open_update.gradients(self.accelerator.backward)
        return torch.tensor(self.last_loss, device=self.args.device)

    def _clip_grad_norm(self, model: Any) -> Any:
        return clip(self.learner.params.values(), self.learner.recipe.settings)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return grad_norm

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, None]:
        """Hand over the number of the next update; there are no items to count here."""
        return [self.state.global_step], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: `inputs` is the number of an update."""
        return 0


def _only(numbers: list[int]) -> int:
    """Return the update of a batch of one."""
    (number,) = numbers
    return number


class _Closing(TrainerCallback):
    """Closes each update after the optimizer step, and writes the checkpoint."""

    def __init__(self, trainer: RecipeTrainer, keeper: Keeper, progress: Progress | None):
        self.trainer, self.keeper, self.progress = trainer, keeper, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        learner, n = self.trainer.learner, state.global_step - 1
        self.trainer.open_update.finish()  # type: ignore[union-attr]  # a step begins with its update
        state.epoch = state.global_step / self.trainer.epoch_updates
        state.num_input_tokens_seen = learner.record.tokens
        if learner.record.validation and learner.record.validation[-1][0] == n:
            self.trainer.log({"validation_loss": learner.record.validation[-1][1]})
        control.should_training_stop |= learner.stopped
        self.keeper.after(n, self.trainer.optimizer)
        if self.progress:
            self.progress(n + 1, learner.total, self.trainer.last_loss)


def train(
    learner: Learner, keeper: Keeper | None = None, progress: Progress | None = None, tracking: Tracking | None = None
) -> None:
    """Run `learner` under transformers and settle; the same weights, to the bit, as `train.loop.train`.

    Args:
        learner: What to learn.
        keeper: Its checkpoint.
        progress: Called after every update.
        tracking: Runs of the trackers; without it, what they write locally is gone with the training.

    Raises:
        Diverged: A loss term is not finite.
        Interrupted: A signal came.
    """
    options = tracking.options if tracking else {}
    with without_launcher():
        trainer = RecipeTrainer(learner, keeper or Keeper(None, learner), progress, **options)
        followed = tracking.following(trainer.callback_handler.callbacks) if tracking else nullcontext()
        with trainer.scratch, followed:
            if trainer.first_update < learner.ended:
                trainer.train()
    learner.settle()
