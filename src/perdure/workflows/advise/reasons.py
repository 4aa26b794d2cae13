"""Where the field and our numbers agree, disagree, or cannot be compared, and what the user has to bring."""

from collections.abc import Mapping, Sequence

from perdure.core.seams import Method
from perdure.core.words import counted
from perdure.workflows.advise.answer import NO_SOURCE, Reason
from perdure.workflows.advise.candidates import Candidate, missing, of_rule
from perdure.workflows.advise.comparison import above, acc_minus, accuracy_of, margin, pairs, signed
from perdure.workflows.advise.constraints import rows_within
from perdure.workflows.advise.guidance import Needs, Rule
from perdure.workflows.advise.table import MeasuredSuite, RehearsalPair

REHEARSING = "instruction_replay"


def reasons(
    chosen: Candidate,
    everything: Sequence[Candidate],
    refused: Mapping[str, str],
    field: Sequence[Rule],
    registry: Mapping[str, type[Method]],
    suite: MeasuredSuite | None,
) -> list[Reason]:
    """Return where the field and the numbers agree, disagree, or cannot be compared."""
    texts = []
    if suite is None:
        sentence = "nothing was measured here yet, so this has no number of ours as support"
        texts.append(Reason(sentence, NO_SOURCE))
    for rule in (rule for rule in field if not missing(rule, registry)):
        advised = of_rule(rule, [c for c in everything if c.name not in refused]) or of_rule(rule, everything)
        if advised is None:
            continue
        if advised.name in refused:
            sentence = f"{rule.situation} the field advises {rule.says}; but {refused[advised.name]}"
        elif advised is not chosen:
            sentence = against(rule, advised, chosen)
        elif chosen.measured:
            sentence = f"the field agrees: {rule.situation}, {rule.says}"
        else:
            continue  # it is the reason that was given
        texts.append(Reason(sentence, rule.source))
    return texts


def against(rule: Rule, advised: Candidate, chosen: Candidate) -> str:
    """Return in words how the field's advice and the choice compare in our numbers."""
    sentence = f"{rule.situation} the field advises {rule.says}"
    if advised.measured is None or chosen.measured is None:
        return f"{sentence}; {advised.name} was not measured here, so we have no number on whether it would do better"
    if above(chosen.measured, advised.measured):
        verdict = "go further" if {*rule.parts} < {*chosen.methods} else "disagree"
        return f"{sentence}; our numbers {verdict}: {margin(chosen.measured, advised.measured)}"
    gap = acc_minus(advised.measured, chosen.measured)
    by_row = f": {signed(gap)}, {pairs(gap)}" if gap else ""
    both = f"{advised.name} ({accuracy_of(advised.measured)}) and {chosen.name} ({accuracy_of(chosen.measured)})"
    return f"{sentence}; in our numbers {both} do not differ significantly{by_row}"


def changes(
    chosen: Candidate, needs: Needs, registry: Mapping[str, type[Method]], rehearsal: Sequence[RehearsalPair] = ()
) -> list[Reason]:
    """Return why the recipe differs from the one it rests on, and what the user has to bring."""
    texts = []
    rows = rows_within(chosen, needs)
    if chosen.recipe.remembers and rows is not None:
        had = chosen.measured.memory_rows if chosen.measured else 0
        less = f"; it was measured with {had} rows, so expect less" if had > rows else ""
        size = chosen.recipe.settings.memory_size
        sentence = f"memory_size {rows} fits your memory budget{less}"
        sentence = (
            sentence if rows < size else f"your memory budget would hold {rows} rows; the recipe stores at most {size}"
        )
        texts.append(Reason(sentence, "your answers"))
    if needs.instructions and REHEARSING in registry:
        sentence = (
            "instruction_replay keeps the model close to the base's answers to general instructions. It does nothing without "
            "such instructions: name a file of them as `general:` in the task file. Replay of tasks alone protects the tasks, "
            "but not helpfulness"
        )
        texts.append(
            Reason(sentence, "Wang et al. 2023 (TRACE), arXiv 2310.06762; Scialom et al. 2022, arXiv 2205.12393")
        )
        texts += _rehearsed(chosen, rehearsal)
    return texts


def _rehearsed(chosen: Candidate, rehearsal: Sequence[RehearsalPair]) -> list[Reason]:
    """Return the measured effect and cost of the rehearsal: with the chosen recipe, else with the first one measured."""
    pair = next((pair for pair in rehearsal if pair.arm == chosen.name), next(iter(rehearsal), None))
    if pair is None:
        return []
    scores = "; ".join(
        f"{name} {score.with_method:.3f} with it and {score.without:.3f} without ({score.base:.3f} before any task; by row "
        f"{signed(score.minus)}, n = {score.minus.n})"
        for name, score in pair.watched.items()
    )
    cost = f"{pair.train_ratio:.2f} times the training time, and ACC {signed(pair.acc_minus)}"
    sentence = f"measured with {pair.arm} on {pair.suite}: {scores}; for {cost}"
    return [Reason(sentence, f"perdure bench, {counted(len(pair.seeds), 'seed')}")]
