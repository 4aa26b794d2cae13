"""Methods of other packages: an entry point brings them in, and a package that is wrong is named."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.core.errors import BadSpec
from perdure.core.fields import FieldAbout
from perdure.core.recipe import build_recipe
from perdure.methods.outside import GROUP
from perdure.methods.registry import all_methods, own_methods
from perdure.workflows.advise.explain import describe
from perdure.workspace.facade import Workspace

ROOT = Path(__file__).parents[2]
METHOD = '''
"""Decay of the weights towards zero, as a loss."""

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.fields import Strength
from perdure.core.seams import Method


@dataclass(frozen=True)
class Shrink(Method):
    """Add strength x 1/2 ||w||^2.

    Seams: loss. State: none. Cost: none. When to use: in tests.
    """

    name: ClassVar[str] = "shrink"
    family: ClassVar[str] = "regularisation"
    seams: ClassVar[tuple[str, ...]] = ("loss",)
    source: ClassVar[str] = "Krogh & Hertz 1991, https://proceedings.neurips.cc"

    strength: Strength = Field(default=0.5, description="factor of the term")

    @property
    def active(self):
        return self.strength > 0

    def loss(self, step, state):
        return step.once(self.strength * 0.5 * sum(w.square().sum() for w in step.params.values()))
'''


def install(site: Path, package: str = "shrinking", code: str = METHOD, target: str = "shrinking:Shrink") -> Path:
    """Write what pip leaves of an installed package: its module, and its metadata with an entry point."""
    site.mkdir(exist_ok=True)
    (site / f"{package}.py").write_text(code)
    info = site / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nit = {target}\n")
    return site


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages that Python looks into; what is imported from it is forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_method_of_another_package_is_listed_described_and_learned_with(site, stream):
    install(site)
    registry = all_methods()
    assert set(registry) == {*own_methods(), "shrink"}
    told = describe(registry["shrink"])
    assert told.fields["strength"] == FieldAbout("float", "at least 0", 0.5, "factor of the term")
    assert (told.module, told.idea) == ("shrinking", "Decay of the weights towards zero, as a loss.")
    recipe = build_recipe({"methods": {"shrink": {"strength": 2}}}, registry)
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), registry) == recipe
    with pytest.raises(BadSpec, match=r"method shrink: strength: .*greater than or equal to 0"):
        build_recipe({"methods": {"shrink": {"strength": -1}}}, registry)
    smaller, plain = (stream.train(stream.learner(methods)).weights for methods in ({"shrink": {}}, {}))
    assert sum(w.square().sum() for w in smaller.values()) < sum(w.square().sum() for w in plain.values())


def test_a_workspace_learns_with_it(site, tmp_path, tiny_model):
    install(site)
    rows = [{"prompt": f"Parcel {i}?", "completion": ["yes", "no"][i % 2]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text("num_train_epochs: 1\nmethods: {shrink: {strength: 0.25}}\n")
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    ws.learn("parcels", tmp_path / "rows.jsonl", recipe=tmp_path / "mine.yaml", gate=None)
    assert ws.ledger.resolve("head").recipe["methods"] == {"shrink": {"strength": 0.25}}


def test_the_contract_suite_tries_it(tmp_path):
    path = os.pathsep.join(map(str, (install(tmp_path / "site"), ROOT / "src")))
    chosen = "shrink and not order and not accumulation and not resumed"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/contract/test_methods_contract.py", "-k", chosen],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 8


@pytest.mark.parametrize(
    ("code", "target", "words"),
    [
        ("import nothing_of_this_name", "shrinking:Shrink", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("1 / 0", "shrinking:Shrink", "cannot be loaded: ZeroDivisionError"),
        (METHOD, "shrinking:Shrunk", "cannot be loaded: AttributeError"),
        ("Shrink = 3", "shrinking:Shrink", "3 is no class that derives from perdure.core.seams.Method"),
        ("class Shrink: pass", "shrinking:Shrink", "derives from perdure.core.seams.Method"),
        (METHOD.replace('("loss",)', '("loss", "mask")'), "shrinking:Shrink", "Shrink declares seams"),
        (METHOD.replace('"shrink"', '"replay"'), "shrinking:Shrink", "both have a method 'replay'"),
    ],
)
def test_a_package_that_is_wrong_is_named(site, code, target, words):
    install(site, code=code, target=target)
    with pytest.raises(BadSpec, match=r"shrinking 1\.2") as caught:
        all_methods()
    assert words in str(caught.value)


def test_two_packages_with_methods_of_one_name_are_both_named(site):
    install(site)
    install(site, "shrivelling", target="shrivelling:Shrink")
    with pytest.raises(BadSpec, match=r"packages shrinking 1.2 and shrivelling 1.2 both have a method 'shrink'"):
        all_methods()


def test_a_method_that_registers_itself_too_is_taken_once(site, monkeypatch):
    from perdure.methods import registry

    monkeypatch.setattr(registry, "METHODS", dict(own_methods()))
    line = "from perdure.methods.registry import register\n\n\n@register\n@dataclass"
    install(site, code=METHOD.replace("@dataclass", line))
    assert all_methods()["shrink"] is all_methods()["shrink"]
