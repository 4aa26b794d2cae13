"""Workspaces with edits, made once for all files that ask for them."""

import shutil

import pytest

import people
from edited import FACTS, SAID, SPEC
from perdure import Workspace
from perdure.core.errors import BadInput


@pytest.fixture(scope="session")
def people_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    for part in people.make("gpt2"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bare(people_folder, tmp_path_factory):
    """A workspace without an edit, its statistics of the keys measured."""
    made = Workspace.init(tmp_path_factory.mktemp("bare") / "ws", str(people_folder), dtype="float32")
    with pytest.raises(BadInput, match="no fact"):
        made.edit([])
    made.edit(FACTS[0], spec=SPEC, gate=SAID)
    made.rollback("base")
    return made


@pytest.fixture
def ws(bare, tmp_path):
    return Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / "ws"))


@pytest.fixture(scope="session")
def all_three(bare, tmp_path_factory):
    """Facts A and B in one entry, C in the next."""
    made = Workspace.open(shutil.copytree(bare.ledger.root, tmp_path_factory.mktemp("three") / "ws"))
    made.edit(FACTS[:2], spec=SPEC, gate=SAID)
    made.edit(FACTS[2], spec=SPEC, gate=SAID)
    return made.ledger.root


@pytest.fixture
def edited(all_three, tmp_path):
    return Workspace.open(shutil.copytree(all_three, tmp_path / "ws"))
