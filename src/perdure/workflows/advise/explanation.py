"""What `perdure methods` and `perdure recipe explain` print."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.core.fields import FieldAbout
from perdure.core.records import JsonObject, Record, omitted, written_as


@dataclass(frozen=True)
class MethodCard(Record):
    """A method for a reader.

    Args:
        name: Its name.
        family: Its family.
        seams: The seams it fills.
        fields: What can be set.
        supports: What it works with.
        source: Its paper.
        idea: What it does, in a sentence.
        formula: What it computes.
        says: Sections of its docstring, by name.
        exclusive: Seams it fills that have room for one method.
        module: Where it is defined.
        about: Its docstring.
    """

    name: str
    family: str
    seams: tuple[str, ...]
    fields: Mapping[str, FieldAbout]
    supports: tuple[str, ...]
    source: str
    idea: str
    formula: str
    says: Mapping[str, str]
    exclusive: tuple[str, ...]
    module: str
    about: str | None


@dataclass(frozen=True)
class Moment(Record):
    """A seam of a task.

    Args:
        moment: When it is reached.
        seam: Its name.
        owners: The recipe's methods that fill it.
        room: "one" or "many" methods.
        purpose: What it is for.
    """

    moment: str
    seam: str
    owners: tuple[str, ...]
    room: str
    purpose: str = field(metadata=written_as("for"))


@dataclass(frozen=True)
class TakenSeam(Record):
    """A seam with room for one method, which a recipe fills.

    Args:
        seam: Its name.
        owner: The method.
        keeps_out: Methods that cannot be added for it.
    """

    seam: str
    owner: str
    keeps_out: tuple[str, ...]


@dataclass(frozen=True)
class CarriedColumn(Record):
    """A column of log-probabilities that rows carry.

    Args:
        name: Its name.
        rows: Which rows: "new", "replay" or "general".
        teacher: Whose distribution.
        refresh: It is written anew for each task.
        top_k: How many of the likeliest tokens; None is the whole vocabulary.
        bytes_per_label_token: Its size; None where that depends on the vocabulary.
        methods: Which methods read it.
    """

    name: str
    rows: str
    teacher: str
    refresh: bool
    top_k: int | None
    bytes_per_label_token: int | None
    methods: tuple[str, ...] = field(metadata=written_as("for"))


@dataclass(frozen=True)
class MemorySize(Record):
    """What a workspace remembers now: rows, in all and by pool, and bytes of text and of teacher columns."""

    rows: int
    pools: Mapping[str, int]
    text_bytes: int
    column_bytes: int


@dataclass(frozen=True)
class MemoryPlan(Record):
    """What a recipe remembers and draws.

    Args:
        pools: Methods that draw, by pool.
        keeps_rows: Rows of a task enter memory.
        starved: Methods that would draw and get no rows.
        admission: What chooses the rows; None where none is stored.
        memory_per_label: Rows of each label.
        memory_per_task: Rows of a task without labels.
        memory_size: Rows in all.
        now: What the workspace remembers; left out without a workspace.
    """

    pools: Mapping[str, tuple[str, ...]]
    keeps_rows: bool
    starved: tuple[str, ...]
    admission: str | None
    memory_per_label: int
    memory_per_task: int
    memory_size: int
    now: MemorySize | None = omitted(None)


@dataclass(frozen=True)
class StateBytes(Record):
    """Bytes of one method's state.

    Args:
        learning: For each trainable parameter, while a task is learned.
        kept: For each trainable parameter, between tasks.
        more: Whether something is stored that does not grow with the parameters, such as prototypes.
    """

    learning: float
    kept: float
    more: bool


@dataclass(frozen=True)
class Cost(Record):
    """What a recipe costs from its second task on.

    Args:
        drawn: Rows that an update draws from each pool, on average; a draw of its own has the method's name behind a colon.
        forward: Rows an update runs forward, in multiples of its new rows; plain training is 1.
        backward: The same backward.
        held: Bytes for each trainable parameter that an update needs besides state and optimizer: reference gradients, copies.
        before: Rows run forward before the first update, in multiples of the task's rows.
        after: Rows run forward after the last one, to settle and to measure, where there are 512 new rows and 32 of memory.
        state: Methods that have a state.
        features_before: Rows whose features are read before the first update, in multiples of the task's rows. A row costs the
            blocks of the model behind which features are taken, a third of a forward; left out of the JSON where it is 0.
        features_after: The same after the last update, in rows, where there are 512 new ones.
    """

    drawn: Mapping[str, float]
    forward: float
    backward: float
    held: float
    before: float
    after: int
    state: Mapping[str, StateBytes]
    features_before: float = omitted(0.0)
    features_after: int = omitted(0)


@dataclass(frozen=True)
class TrainingBytes(Record):
    """Bytes of what is trained: its weights, gradients, AdamW's moments, and what an update needs besides."""

    weights: int
    gradients: int
    optimizer: int
    held: int


@dataclass(frozen=True)
class StateSize(Record):
    """Bytes of one method's state while a task is learned, and between tasks."""

    learning: int
    kept: int


@dataclass(frozen=True)
class ModelBytes(Record):
    """The cost of a recipe for a model.

    Args:
        parameters: Of the model.
        trainable: Of what the recipe trains.
        training_bytes: While it trains.
        state_bytes: Of each method's state.
    """

    parameters: int
    trainable: int
    training_bytes: TrainingBytes
    state_bytes: Mapping[str, StateSize]


@dataclass(frozen=True)
class Explanation(Record):
    """What a recipe does in an update and around it, and what it costs.

    Args:
        name: Of the recipe.
        methods: Fields of its methods, by name.
        off: Methods that it names and that their fields switch off.
        settings: Every training setting.
        changed: Names of the settings that are not at their default.
        moments: Every seam in the order of a task.
        exclusive: Seams with room for one method that are taken.
        needs: Methods by what they need from the host.
        columns: What rows carry.
        memory: What is remembered and drawn.
        cost: Counted on a network of a few weights.
        model: The same in bytes; None without a model.
    """

    name: str
    methods: Mapping[str, JsonObject]
    off: tuple[str, ...]
    settings: JsonObject
    changed: tuple[str, ...]
    moments: tuple[Moment, ...]
    exclusive: tuple[TakenSeam, ...]
    needs: Mapping[str, tuple[str, ...]]
    columns: tuple[CarriedColumn, ...]
    memory: MemoryPlan
    cost: Cost
    model: ModelBytes | None
