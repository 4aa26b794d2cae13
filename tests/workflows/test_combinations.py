"""Verbs in many orders on a tiny model in bfloat16: after each one the workspace is sound, and says what it said before."""

import pytest
import torch

from perdure import Workspace
from walks import Walk, logits

CHAIN = ["learn", "edit", "learn", "edit_file", "revert", "update", "rollback", "edit", "resolve", "export", "gc"]


def begin(folder, model, seed=0):
    return Walk(Workspace.init(folder / "ws", str(model), dtype="bfloat16"), folder / "files", seed)


@pytest.fixture(scope="module")
def chain(people_folder, tmp_path_factory):
    """A workspace that went the chain, and was checked after each step."""
    walk = begin(tmp_path_factory.mktemp("chain"), people_folder)
    walk.steps(CHAIN)
    return walk


def test_the_chain_of_a_user_is_sound_after_every_step(chain):
    kinds = [entry.kind for entry in chain.ws.ledger.entries()]
    assert kinds.count("learn") >= 3
    assert kinds.count("edit") >= 2
    assert kinds.count("revert") >= 1


def test_the_same_steps_give_the_same_entries_in_another_workspace(chain, people_folder, tmp_path):
    again = begin(tmp_path, people_folder)
    for verb in CHAIN[:6]:
        again.step(verb)
    made = [entry.id for entry in again.ws.ledger.entries()]
    assert len(made) == 7
    assert made == [entry.id for entry in chain.ws.ledger.entries()][:7]


def test_every_state_of_the_chain_is_reached_again_to_the_bit(chain):
    ws = Workspace.open(chain.ws.ledger.root)
    states = {entry.id: ws.ledger.state(entry) for entry in ws.ledger.entries()}
    found = {}
    for entry_id in [*states, *reversed(states)]:  # there and back again
        ws.rollback(entry_id)
        now = logits(ws)
        assert torch.equal(found.setdefault(states[entry_id], now), now)
    assert len(found) == len(set(states.values()))


def test_a_random_walk_over_the_verbs_is_sound_after_every_step(people_folder, tmp_path):
    walk = begin(tmp_path, people_folder, seed=4)
    walk.steps(walk.chosen(9))
