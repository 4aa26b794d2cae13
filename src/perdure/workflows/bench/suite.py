"""A suite: the tasks of a benchmark in order, the data files their rows come from, and how the rows are chosen."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perdure.core.canonical import content_hash
from perdure.core.fields import MANY

_NAME = r"^\w[\w.-]*$"  # of a task, as its file and its name in a workspace


class Part(BaseModel):
    """Which rows make the train or the test part of a task.

    Args:
        split: What the data's `split` column says of them.
        per_label: Rows of each label; None takes all.
        skip: Rows of each label that are left to others: the first of those drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    per_label: int | None = Field(default=None, ge=1, le=MANY, strict=True)
    skip: int = Field(default=0, ge=0, le=MANY, strict=True)


class Source(BaseModel):
    """Where rows come from.

    Args:
        file: Data file, relative to the folder of data; or `DIGITS`, which needs none.
        where: Values by column that its rows have.
        labels: How many labels, the first by name, or which; None takes all.
        chat: Whether `prompt` and `completion` are a turn of a chat each, rather than plain text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    where: dict[str, Any] = {}
    labels: Annotated[int, Field(ge=1, le=MANY, strict=True)] | list[str] | None = None
    chat: bool = False


class SuiteTask(Source):
    """One task of a suite.

    Args:
        name: Its name.
        train: Rows to learn from.
        test: Rows that score.
        task: Settings of a task file: `template`, `scorer`, `max_new_tokens`, ...
    """

    name: str = Field(pattern=_NAME)
    train: Part
    test: Part
    task: dict[str, Any] = {}


class General(Source):
    """General instructions, for the methods that rehearse them.

    Args:
        train: The rows.
    """

    train: Part


class Watched(Source):
    """Something the model could do before any task: scored before the first and after the last, never learned.

    Args:
        name: Its name.
        test: Rows that score: the same for every seed.
        task: Settings of a task file, as those of a task.
    """

    name: str = Field(pattern=_NAME)
    test: Part
    task: dict[str, Any] = {}


class Suite(BaseModel):
    """A benchmark: what is learned, in order, on which model.

    Args:
        name: Its name.
        about: What it is, in a sentence or two.
        kind: What learns: "text" is a language model in a workspace, as `perdure learn` does; "features" an MLP on rows with
            a list of numbers and a label.
        model: Base model, as in `perdure init`; or the hidden widths of an MLP, as "mlp:100,100".
        dtype: Its frozen weights, as in `perdure init`.
        settings: Training settings of every arm, above its recipe's and below its own overrides.
        sources: How to get each data file, by its path.
        tasks: In the order in which they are learned.
        general: General instructions that every task names, as `general` in a task file; or "made".
        watch: What is scored before and after all tasks, to see what they cost.
        guards: What the model could do before any task: names of shipped guards, or guard files in the folder of data.
        guard_budget: How many items of each guard are scored, as a budget of `perdure checkup`.
        guards_at: States at which guards are scored, besides the base: after every task, or only after the last.
        too_long: Whether rows of tasks that are longer than `max_length` of `settings` are cut in training, or left out before
            rows are drawn.
        score_at: Numbers of learned tasks at which every task so far is scored, as it is after the last one; elsewhere the new
            task alone is. None scores every task after each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = ""
    kind: Literal["text", "features"] = "text"
    model: str = "smollm2-135m"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    tasks: list[SuiteTask] = Field(min_length=1)
    general: General | Literal["made"] | None = None
    watch: list[Watched] = []
    guards: list[str] = []
    guard_budget: Literal["learn", "quick", "standard", "full"] = "learn"
    guards_at: Literal["every", "last"] = "every"
    too_long: Literal["cut", "leave_out"] = "cut"
    score_at: list[Annotated[int, Field(ge=1, le=MANY, strict=True)]] | None = None

    @model_validator(mode="after")
    def _named_once(self) -> "Suite":
        names = [task.name for task in self.tasks] + [one.name for one in self.watch]
        names += [Path(guard).stem for guard in self.guards]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"a task appears twice: {twice!r} names two tasks or guards; give each a name of its own")
        if self.kind == "features" and (self.general or self.watch or self.guards):
            raise ValueError(
                "rows with features have no instructions to rehearse and nothing to watch or guard; leave these out"
            )
        if self.kind == "features" and self.too_long != "cut":
            raise ValueError("rows with features have no tokens; leave out `too_long`")
        if self.score_at is not None:
            if self.kind == "features":
                raise ValueError("rows with features are scored in no time; leave out `score_at`")
            if sorted(set(self.score_at)) != self.score_at or (self.score_at or [1])[-1] > len(self.tasks):
                raise ValueError(f"`score_at` rises from 1 to {len(self.tasks)}, the number of tasks, each number once")
        return self

    @field_validator("settings")
    @classmethod
    def _no_methods(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if any(key.partition(".")[0] == "methods" for key in settings):
            raise ValueError("methods belong to the recipes that are compared, not to the suite")
        return settings

    def scores_all_after(self, learned: int) -> bool:
        """Return whether every task so far is scored after so many were learned; the last stage always is."""
        return self.score_at is None or learned in self.score_at or learned == len(self.tasks)

    @property
    def hash(self) -> str:
        """Identity of everything that decides a result; what only people read is left out."""
        return content_hash(self.model_dump(mode="json", exclude_defaults=True, exclude={"about", "sources"}))

    @property
    def learned(self) -> str:
        """Identity of everything that decides what is learned: that of the suite without its name, and without what is scored."""
        left_out = {"about", "sources", "name", "watch", "guards", "guard_budget", "guards_at"}
        return content_hash(self.model_dump(mode="json", exclude_defaults=True, exclude=left_out))

    @property
    def files(self) -> list[Path]:
        """Every data file it reads, once."""
        general = [self.general] if isinstance(self.general, General) else []
        sources: list[Source] = [*self.tasks, *general, *self.watch]
        guards = [Path(guard) for guard in self.guards if Path(guard).suffix in (".yaml", ".yml")]
        return list(dict.fromkeys([*(source.file for source in sources), *guards]))
