"""On a model of random weights every guard that is scored right or wrong is blind, and nothing is called kept."""

from perdure import Workspace
from perdure.data.guard_spec import guard_file, guard_names, load_guard_spec


def test_every_guard_is_blind_on_random_weights_and_the_verdict_is_not_pass(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")
    made = [name for name in guard_names() if load_guard_spec(guard_file(name)).made]
    names = [
        name for name in made if name not in ("drift", "programs")
    ]  # drift has no right answer; programs are not run
    found = ws.checkup(only=names).to_json()
    assert {name: reading["blind"] for name, reading in found["guards"].items()} == dict.fromkeys(names, True)
    assert found["gate"]["verdict"] == "inconclusive"
