"""A task of lm-evaluation-harness that is loaded: its requests by item, its metrics of single items, and its items as rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row

SEED = 1234  # of the few-shots, as `lm_eval.simple_evaluate` has it
NORMED = "acc_norm"  # the metric of a task that has it: choices of different lengths are compared by it
OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")


@dataclass(frozen=True)
class Loaded:
    """A task that is loaded, with its requests.

    Args:
        name: Its name.
        task: The harness' object.
        requests: The requests of each item by its number, in their order.
    """

    name: str
    task: Any
    requests: Mapping[int, Sequence[Any]]

    @classmethod
    def of(cls, name: str, task: Any) -> "Loaded":
        """Return a task with its requests, few-shots drawn as `lm_eval.simple_evaluate` draws them.

        Raises:
            BadInput: It runs programs, reads images or sound, wants samples, or has another type of output.
        """
        kind, options = task.OUTPUT_TYPE, task.get_config("generation_kwargs") or {}
        if getattr(task, "UNSAFE_CODE", False):
            raise BadInput(
                f"task {name} of lm-evaluation-harness runs programs that the model writes, without limits; take the guard "
                "humaneval or programs, and --run-code"
            )
        if kind not in TYPES or getattr(task, "MULTIMODAL", False):
            raise BadInput(f"task {name} of lm-evaluation-harness has no guard: it is {kind}, or reads images or sound")
        if kind == "generate_until" and options.get("do_sample") and options.get("temperature", 1.0):
            raise BadInput(
                f"task {name} of lm-evaluation-harness wants sampled answers, and the answers of a guard are greedy"
            )
        task.set_fewshot_seed(SEED)
        task.build_all_requests(rank=0, world_size=1)
        requests: dict[int, list[Any]] = {}
        for request in task.instances:
            requests.setdefault(request.doc_id, []).append(request)
        return cls(name, task, {n: sorted(own, key=lambda one: one.idx) for n, own in requests.items()})

    def metric(self, wanted: str | None = None) -> str:
        """Return the metric of an item: the wanted one, else `acc_norm`, else the first.

        Raises:
            BadInput: The task has no such metric, or none of single items.
        """
        from lm_eval.api.metrics import mean

        rising = self.task.higher_is_better()
        every = self.task.aggregation()
        single = [name for name, over in every.items() if over is mean and rising.get(name, True)]
        if wanted is not None and wanted not in single:
            raise BadInput(
                f"task {self.name} of lm-evaluation-harness has no metric {wanted!r} of single items"
                + (f"; it has {', '.join(single)}" if single else "")
            )
        if not single:
            raise BadInput(
                f"the metrics of task {self.name} of lm-evaluation-harness ({', '.join(every)}) are computed over the whole "
                "set, or fall with quality; a guard compares items, and needs a metric such as acc or exact_match"
            )
        return wanted or (NORMED if NORMED in single else single[0])

    def filter(self, wanted: str | None = None) -> str:
        """Return the name of the filter of answers: the wanted one, else the task's first.

        Raises:
            BadInput: The task has no such filter.
        """
        names = [one.name for one in self.task._filters]
        if wanted is not None and wanted not in names:
            raise BadInput(
                f"task {self.name} of lm-evaluation-harness has no filter {wanted!r}; it has {', '.join(names)}"
            )
        return wanted or str(names[0])

    def gold(self, number: int) -> Any:
        """Return the right answer of an item as the task writes it: an index, a text, or several."""
        doc = self.requests[number][0].doc
        several_contexts = getattr(self.task, "multiple_input", 0)
        return self.task.doc_to_text(doc) if several_contexts else self.task.doc_to_target(doc)

    def plain(self, metric: str) -> bool:
        """Return whether every item is a prompt, choices and the index of one right choice, so that rows hold all of it."""
        config = self.task.config
        if self.task.OUTPUT_TYPE != "multiple_choice" or metric not in ("acc", NORMED):
            return False
        if config.process_results is not None or config.filter_list is not None:
            return False
        return all(self._plain_item(number, metric) for number in self.requests)

    def _plain_item(self, number: int, metric: str) -> bool:
        requests, gold = self.requests[number], self.gold(number)
        if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(requests) or len(requests) < 2:
            return False
        pairs = [moved(*request.args) for request in requests]
        texts = self.task.doc_to_choice(requests[0].doc)
        same = len({context for context, _ in pairs}) == 1 and bool(pairs[0][0]) and len(texts) == len(pairs)
        return same and (
            metric != NORMED
            or all(len(text.removeprefix(" ")) == len(own) for (_, text), own in zip(pairs, texts, strict=True))
        )

    def chances(self, metric: str) -> list[float]:
        """Return for each item the share of its choices that is right; nothing of a task without choices."""
        if self.task.OUTPUT_TYPE != "multiple_choice" or metric not in OF_CHOICES:
            return []
        counts = [len(self.task.doc_to_choice(requests[0].doc)) for requests in self.requests.values()]
        golds = [self.gold(number) for number in self.requests]
        return [(len(gold) if isinstance(gold, list) else 1) / count for gold, count in zip(golds, counts, strict=True)]


def moved(context: str, continuation: str) -> tuple[str, str]:
    """Return a context and its continuation, which gets the white space at the end of the context, as in the harness."""
    spaces = len(context) - len(context.rstrip())
    return (context[:-spaces], context[-spaces:] + continuation) if spaces else (context, continuation)


def written_row(part: Loaded, number: int) -> Row:
    """Return an item as a row for people and for its identity: its first prompt, and what should follow."""
    first, gold = part.requests[number][0], part.gold(number)
    source = f"harness:{part.name}:{number}"
    if part.task.OUTPUT_TYPE == "loglikelihood_rolling":
        return Row(completion=first.args[0], source=source)
    if part.task.OUTPUT_TYPE == "generate_until":
        wanted = gold[0] if isinstance(gold, list | tuple) and gold else gold
        return Row(prompt=first.args[0], completion=str(wanted), source=source)
    own = part.requests[number]
    right = own[gold] if isinstance(gold, int) and 0 <= gold < len(own) else first
    return Row(prompt=right.args[0], completion=right.args[1], source=source)
