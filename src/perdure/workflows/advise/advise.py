"""A recipe for a user's situation, with the reasons: hard constraints first, then our own numbers, then what the field advises.

The numbers are in advice.json, which benchmarks/advice.py makes from the results of `perdure bench`. Everything here is a
pure function of the needs, that table and the registry. Where a number and the field disagree, both are reported, and the
number decides; where nothing was measured, that is reported too.
"""

from collections.abc import Mapping, Sequence

from perdure.core.recipe import build_recipe
from perdure.core.seams import Method
from perdure.workflows.advise.candidates import Candidate, Json, candidates, missing, nearest_suite
from perdure.workflows.advise.cautions import cautions
from perdure.workflows.advise.choice import choose
from perdure.workflows.advise.comparison import acc_minus, rivals
from perdure.workflows.advise.constraints import refusal, rows_within
from perdure.workflows.advise.guidance import FIELD, Needs
from perdure.workflows.advise.reasons import REHEARSING, changes, reasons


def advise(
    needs: Needs,
    suites: Sequence[Json],
    registry: Mapping[str, type[Method]],
    shipped: Mapping[str, Json],
    rehearsal: Sequence[Json] = (),
) -> Json:
    """Return the advice, as `perdure recipe advise --json` prints it.

    Args:
        needs: What the user said.
        suites: The measured table.
        registry: The methods there are.
        shipped: Shipped recipes as they are written, by name.
        rehearsal: What `read_rehearsal` returned.

    Returns:
        "recipe" (a file's content), "from" (the recipe or arm it rests on), "measured" (its line of the table or None), "suite",
        "reasons" ({"says", "source"}), "rivals" (others whose ACC cannot be told apart; "acc_minus" is theirs minus the
        recipe's, by test row over "seeds" shared seeds, or None), "refused" ({"recipe", "why"}), "not_here" ({"what", "says",
        "source"}), "cautions".
    """
    suite = nearest_suite(needs, suites)
    field = [rule for rule in FIELD if rule.holds(needs)]
    everything = candidates(suite, field, registry, shipped)
    refused = {c.name: why for c in everything if (why := refusal(c, needs))}
    fitting = [c for c in everything if c.name not in refused]
    chosen, how = choose(fitting, [rule for rule in field if not missing(rule, registry)])
    return {
        "recipe": fitted(chosen, needs, registry),
        "from": chosen.name,
        "measured": chosen.measured,
        "suite": suite and {key: suite[key] for key in ("name", "about", "model", "tasks")},
        "reasons": [
            how,
            *reasons(chosen, everything, refused, field, registry, suite),
            *changes(chosen, needs, registry, rehearsal),
        ],
        "rivals": [_told(c, chosen) for c in rivals(chosen, fitting)],
        "refused": [{"recipe": name, "why": why} for name, why in refused.items()],
        "not_here": [
            {"what": what, "says": f"{rule.situation}: {rule.says}", "source": rule.source}
            for rule in field
            for what in missing(rule, registry)
        ],
        "cautions": cautions(chosen, needs, suite),
    }


def fitted(chosen: Candidate, needs: Needs, registry: Mapping[str, type[Method]]) -> Json:
    """Return the recipe as a file, with what the needs change."""
    written = {**chosen.written, "name": "advised"}
    rows = rows_within(chosen, needs)
    if chosen.recipe.remembers and rows is not None:
        written["memory_size"] = min(rows, chosen.recipe.settings.memory_size)
    if needs.instructions and REHEARSING in registry and REHEARSING not in chosen.methods:
        written["methods"] = {**(written.get("methods") or {}), REHEARSING: {}}
    build_recipe(written, registry)
    return written


def _told(rival: Candidate, chosen: Candidate) -> Json:
    measured, gap = rival.measured or {}, acc_minus(rival, chosen)
    return {"recipe": rival.name, "acc": measured["acc"], "acc_minus": gap, "train_ratio": measured.get("train_ratio")}
