"""A task that is answered with labels, in a workspace with edited facts: neither changes the other."""

import json

import pytest

import people
from edited import NAMES, A, moved, said, slot, write
from perdure.core.errors import BadInput


@pytest.fixture
def both(edited, tmp_path):
    """Three facts, and then a task that tells how a sentence ends."""
    rows = [
        {"text": form.format(name), "label": form.split()[-1], "split": "train" if n < 12 else "test"}
        for n, name in enumerate(people.PEOPLE)
        for form in ("{} lives in Rome", "{} lives in Oslo")
    ]
    path = tmp_path / "cities.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    edited.learn("cities", path, recipe="slda", settings={"template": "{text} ."}, gate=None)
    return edited


def seen(ws):
    return ws.ledger.seen(ws.ledger.resolve("head"), "cities")


def label(ws):
    return ws.predict(["Ann Lee lives in Oslo"], task="cities")[0].answer


def test_facts_stay_as_they_are_and_so_do_labels(both):
    assert label(both) == "Oslo"
    before, edits = seen(both), slot(both)
    assert said(both, NAMES[0]) == moved(NAMES[0]).target.strip()
    write(both, moved("Ann Lee"))
    assert slot(both) != edits
    both.revert(A)
    assert seen(both) == before
    assert label(both) == "Oslo"
    both.revert("cities")
    assert both.ledger.slots(both.ledger.resolve("head")).keys() == {"edits"}
    assert said(both, NAMES[1]) == moved(NAMES[1]).target.strip()


def test_export_writes_the_facts_and_offers_the_labels(both, tmp_path):
    made = both.export(tmp_path / "adapter")
    assert made.facts.said == 3
    assert both.export_classifier(tmp_path / "labels").tasks == ("cities",)
    with pytest.raises(BadInput, match="--classifier"):
        both.export(tmp_path / "other", task="cities")
