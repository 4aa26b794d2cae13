"""The production host: a `transformers.Trainer` that runs the updates of a `Learning`.

Trainer brings devices, trackers and progress; what an update means is in `train/learning.py`, shared with the reference loop,
and a test keeps the two equal to the bit. Batches, draws and losses never pass through Trainer's own data path, because a
callback sees neither batch nor loss, and a collator does not know the update.
"""

import tempfile
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from perdure.core.errors import BadSpec
from perdure.train.checkpoint import Keeper
from perdure.train.learning import Learning
from perdure.train.loop import Progress
from perdure.train.optimizer import clip, make_optimizer, make_schedule


class Updates(Dataset):
    """The updates still to do, as their numbers; the rows are drawn when an update begins."""

    def __init__(self, start: int, total: int):
        self.numbers = range(start, total)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> int:
        return self.numbers[index]


class RecipeTrainer(Trainer):
    """Runs a `Learning` under transformers.

    Args:
        learning: What to learn.
        keeper: Its checkpoint.
        progress: Called after every update.
        **options: Further `TrainingArguments`.
    """

    def __init__(self, learning: Learning, keeper: Keeper, progress: Progress | None = None, **options: Any):
        settings = learning.recipe.settings
        self.learning, self.last_loss = learning, 0.0
        learning.begin()
        optimizer = make_optimizer(learning.params.values(), settings)
        start = keeper.resume(optimizer)
        schedule = make_schedule(optimizer, settings, learning.total, start)
        self.scratch = tempfile.TemporaryDirectory(prefix="perdure-trainer-")
        chosen = {
            "output_dir": self.scratch.name,
            "per_device_train_batch_size": 1,
            "max_steps": learning.total - start,
            "logging_steps": settings.logging_steps,
            "logging_strategy": "no" if settings.report_to == "none" else "steps",
            "logging_nan_inf_filter": False,
            "max_grad_norm": settings.max_grad_norm,
            "report_to": settings.report_to,
            "save_strategy": "no",
            "use_cpu": next(iter(learning.params.values())).device.type == "cpu",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
        }
        args = TrainingArguments(**{**chosen, **options})
        _ = args.device  # which counts the GPUs that it sees
        args._n_gpu = 1  # else Trainer takes a batch for each, and copies the model to each
        super().__init__(
            model=learning.model,
            args=args,
            train_dataset=Updates(start, learning.total),
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

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one whole update: forwards, backwards, and what methods make of the gradient. Trainer then clips and steps."""
        model.train()
        micros = self.learning.open(inputs)
        self.last_loss = sum(self.learning.accumulate(micro, self.accelerator.backward) for micro in micros)
        self.learning.turn(inputs)
        return torch.tensor(self.last_loss, device=self.args.device)

    def _clip_grad_norm(self, model: Any) -> Any:
        return clip(self.learning.params.values(), self.learning.recipe.settings)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return grad_norm

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, None]:
        """Hand over update numbers; there are no items to count here."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

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
        learning = self.trainer.learning
        update = learning.total - args.max_steps + state.global_step - 1
        learning.close(update)
        self.keeper.after(update, self.trainer.optimizer)
        if self.progress:
            self.progress(update + 1, learning.total, self.trainer.last_loss)


def train(learning: Learning, keeper: Keeper | None = None, progress: Progress | None = None) -> None:
    """Run `learning` under transformers and settle; the same weights, to the bit, as `train.loop.train`.

    Raises:
        Diverged: A loss term is not finite.
        Interrupted: The keeper was asked to stop.
    """
    trainer = RecipeTrainer(learning, keeper or Keeper(None, learning), progress)
    with trainer.scratch:
        if trainer.args.max_steps > 0:
            trainer.train()
    learning.settle()
