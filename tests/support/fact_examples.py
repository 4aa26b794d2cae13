"""Examples of the records of edited facts, for tests that need one of a shape, not measured."""

from dataclasses import replace

from perdure.ledger.records import Answer, Answers, FactLine, WrittenFact


def fact_line(number, said=True, at_edit=True, **more):
    """Return the line of a fact in force."""
    answers = Answers(Answer(0.1, 2.0, said), (), (), None)
    name = f"Subject {number}"
    line = FactLine(
        fact=f"{number:064x}",
        entry="e" * 64,
        subject=name,
        prompt=f"{name} lives in",
        target="Leeds",
        ground_truth=None,
        relation=None,
        paraphrases=(),
        neighbours=(),
        reason=None,
        method="emmet",
        layers=(1,),
        optimised={"loss": 0.1, "steps": 3, "size": 1.0},
        dropped=False,
        at_edit=at_edit,
        efficacy=said,
        paraphrase=0.5 if number else None,
        neighbourhood=1.0,
        generation=said,
        generated=" Leeds ." if said else " Rome .",
        chat=None,
        answers=answers,
    )
    return replace(line, **more)


def dropped(line):
    """Return what is left of a line when its fact is dropped."""
    known = {name: value for name, value in vars(line).items() if name in WrittenFact.__dataclass_fields__}
    return WrittenFact(**{**known, "dropped": True})
