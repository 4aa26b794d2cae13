"""`--run-code` may stand without a value, and takes no other argument for its value."""

import pytest
from shell import run
from typer.main import get_command

from perdure.cli.main import app
from perdure.cli.options import with_value


def test_the_value_is_added_before_the_end_of_options():
    assert with_value(["eval", "--run-code", "task"]) == ["eval", "--run-code=isolated", "task"]
    assert with_value(["--run-code=unsafe", "--", "--run-code"]) == ["--run-code=unsafe", "--", "--run-code"]
    assert with_value(["learn", "--repair", "task"]) == ["learn", "--repair=scale", "task"]


@pytest.mark.parametrize("option", ["--run-code", "--run-code=unsafe"])
def test_a_task_may_follow(ws, option):
    assert "parcel" in run("eval", option, "parcel", "-w", ws).stdout


def test_another_way_is_refused(ws):
    assert "is no way to run programs" in run("eval", "--run-code=maybe", "-w", ws, code=2).stderr


@pytest.mark.parametrize("command", ["eval", "learn", "edit", "merge", "revert", "checkup"])
def test_every_command_that_scores_takes_the_option(command):
    assert any("--run-code" in parameter.opts for parameter in get_command(app).commands[command].params)
