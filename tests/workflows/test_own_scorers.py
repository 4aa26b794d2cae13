"""Scorers of the user's own: in a file that is trusted, or in an installed package."""

import json
import sys
from pathlib import Path

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec
from perdure.evaluate.own_scorers import GROUP, scorer_of_text
from perdure.evaluate.scorers import get_scorer, read_scorer

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "host": "loop"}
CODE = "def whole(prediction, reference):\n    return 1.0\n"


@pytest.fixture
def place(tiny_model, tmp_path):
    rows = [{"prompt": f"{i}?", "completion": f" {i % 3}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "mail.yaml").write_text("train: rows.jsonl\nscorer: python:mine.py:whole\nmax_new_tokens: 1\n")
    Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    return tmp_path


def learn(ws, place, task="mail", **settings):
    return ws.learn(task, place / "mail.yaml", recipe="naive", overrides=FAST, gate=None, settings=settings)


def test_the_code_of_a_file_scores_once_it_is_trusted_and_needs_no_file_later(place):
    ws = Workspace.open(place / "ws")
    with pytest.raises(BadInput, match=r"add --trust-file .*mine.py \(Workspace.trust\) to allow"):
        learn(ws, place)
    digest = ws.trust(place / "mine.py")
    told = learn(ws, place)
    assert told.scores["mail"].score == 1.0
    assert told.scores["mail"].scorer == "python:mine.py:whole"
    task = ws.session.task("mail", ws.ledger.resolve("head"))
    assert task.scorer == {"name": "python:mine.py:whole", "sha256": digest}

    (place / "mine.py").write_text(CODE.replace("1.0", "0.5"))
    with pytest.raises(BadInput, match="which is not trusted as it is now"):
        learn(ws, place, "other")
    (place / "mine.py").unlink()
    rows = [{"prompt": f"more {i}?", "completion": " 1"} for i in range(4)]
    (place / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = Workspace.open(place / "ws")
    more = again.learn("mail", place / "more.jsonl", recipe="naive", overrides=FAST, gate=None)
    assert more.scores["mail"].score == 1.0  # by the stored text


def test_a_text_that_is_missing_or_changed_is_named_with_what_to_do(place):
    ws = Workspace.open(place / "ws")
    stored = ws.ledger.root / "trusted" / f"{ws.trust(place / 'mine.py')}.py"
    learn(ws, place)
    ws.rollback("base")
    stored.write_text(CODE + "#")
    with pytest.raises(BadInput, match=r"was changed since it was trusted as mine.py .*eval --trust-file mine.py"):
        learn(ws, place)
    stored.unlink()
    with pytest.raises(BadInput, match="which is not trusted"):
        learn(ws, place)
    ws.trust(place / "mine.py")
    learn(ws, place)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def (", "mine.py cannot be run: SyntaxError"),
        ("import nothing_of_this_name", "mine.py cannot be run: ModuleNotFoundError"),
        ("other = 1", "mine.py has no function whole"),
        (
            "def whole(prediction, reference):\n    return 2",
            "returned 2 for prediction 'a' and reference 'b'; a score is",
        ),
        (
            "def whole(prediction, reference):\n    return 1 / 0",
            "failed on prediction 'a' and reference 'b': ZeroDivision",
        ),
    ],
)
def test_code_that_does_not_score_is_an_error_that_names_it(code, said):
    with pytest.raises(BadInput, match=r"python:mine\.py:whole") as error:
        scorer_of_text(code, "python:mine.py:whole")("a", "b")
    assert said in str(error.value)


def test_a_file_scorer_is_written_with_file_and_function_and_is_not_run_untrusted():
    with pytest.raises(BadSpec, match=r"write python:FILE\.py:NAME"):
        read_scorer("python:mine.py")
    with pytest.raises(BadSpec, match="no file is trusted here"):
        get_scorer({"name": "python:mine.py:whole", "sha256": "0"})


def test_a_scorer_of_an_installed_package_has_the_name_of_its_entry_point(tmp_path, monkeypatch):
    def install(package, line, code):
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{line}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    install("scoring_of_mine", "half = scoring_of_mine:half", "def half(prediction, reference):\n    return 0.5\n")
    assert get_scorer("half")("a", "b") == 0.5
    assert get_scorer("exact")("a", "a") == 1.0
    with pytest.raises(BadSpec, match="it takes none"):
        read_scorer({"name": "half", "share": 1})
    with pytest.raises(BadSpec, match=r"unknown scorer 'halve'.* did you mean 'half'"):
        read_scorer("halve")
    install("taking", "exact = scoring_of_mine:half", "")
    with pytest.raises(BadSpec, match=r"package taking 1.2, entry point exact = .* there is another scorer 'exact'"):
        get_scorer("half")
    sys.modules.pop("scoring_of_mine", None)


def test_the_example_of_the_page_scores():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "own-scorer.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    score = scorer_of_text(code, "python:close.py:within_ten_percent")
    assert [score("104", "100"), score("89", "100"), score("about 100", "100")] == [1.0, 0.0, 0.0]
