"""The defaults that help shows of options without one of their own are those of the records that they fill."""

from dataclasses import fields

import pytest
from typer.main import get_command

from perdure.cli.main import app
from perdure.editing.spec import EditSpec
from perdure.ledger.records import Gate
from perdure.workflows.edit.gate import EditGate


@pytest.mark.parametrize(
    ("command", "record", "least"),
    [
        ("learn", Gate(), {"tolerance", "mean_drop", "worst_drop", "drift", "lost_facts", "correct"}),
        ("edit", EditGate(), {"paraphrase", "neighbours", "perplexity"}),
        ("edit", EditSpec(), {"batch"}),
    ],
)
def test_a_default_that_help_shows_is_that_of_the_record(command, record, least):
    shown = {p.name: p.show_default for p in get_command(app).commands[command].params}
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    same = {name: values[name] for name in values.keys() & shown.keys() if isinstance(shown[name], str)}
    assert least <= same.keys()
    for name in least:
        word = shown[name]
        assert (word if isinstance(values[name], str) else float(word)) == values[name], name
