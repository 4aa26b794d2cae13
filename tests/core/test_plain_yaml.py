"""YAML within bounds: what nobody writes is one short error with its line, at once."""

from itertools import pairwise

import pytest
import yaml

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_yaml import DEPTH, VALUES, read_yaml, read_yaml_file

NAMES = "abcdefg"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NAMES)
)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (f"train: a\nlabels: {'[' * 5000}{']' * 5000}", 2, f"nested deeper than {DEPTH} levels"),
        ("\n".join(" " * n + "a:" for n in range(200)), DEPTH, "nested deeper"),
        ("- " * 500 + "x", 1, "nested deeper"),
        (BOMB + "labels: *g", 5, f"more than {VALUES:,} values, with those of its aliases"),
        ("base: &a {x: &b [1, 2]}\n" + "".join(f"k{n}: {{<<: *a}}\n" for n in range(9000)), None, "more than"),
        ("a: &a [*a]", 1, "the alias *a is used inside its own value"),
        ("&a {x: *a}", 1, "is used inside"),
        ("a: [" + "x," * 60_000 + "]", 1, "more than"),
        ("a: 1\nb: {c: 2, d: 3, c: 4}", 2, "the key 'c' appears twice"),
        ("lora_r: 1\nmethods: {}\nlora_r: 2", 3, "the key 'lora_r' appears twice"),
        ("a: " + "9" * 5000, 1, "more than 100 digits"),
        ("a: 0x" + "f" * 5000, 1, "more than 100 digits"),
        ("a: 1\nb: 2026-99-99", 2, "'2026-99-99' is no timestamp value; put it in quotes"),
        ("a: !!int ''", 1, "is no int value"),
        ("a: !!bool maybe", 1, "is no bool value"),
        ("a: !!timestamp soon", 1, "is no timestamp value"),
        ("a: !" + "x" * 100_000 + " b", 1, "could not determine a constructor"),
        ("a: !!python/object/apply:os.system [ls]", 1, "could not determine a constructor"),
        ("? [a]\n: b", 1, "unhashable"),
        ("a: [1", 1, "expected"),
        ("a: \0", None, "special characters"),
        ("x" * 600_000, None, "is larger than"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
@pytest.mark.timeout(120)  # a tenth of a second where nothing is wrong
def test_a_hostile_file_is_one_short_error_with_its_line(tmp_path, text, line, problem):
    path = tmp_path / "t.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(BadSpec) as caught:
        read_yaml_file(path, "task file")
    told = str(caught.value)
    assert problem in told
    assert (f"t.yaml:{line} " in told) == (line is not None) or line is None
    assert len(told) < 400 + len(str(path))
    assert "\n" not in told


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"a: 1\nb: \xe9")
    with pytest.raises(BadInput, match=r"recipe .*b.yaml:2 is not UTF-8 text"):
        read_yaml_file(tmp_path / "b.yaml", "recipe")
    with pytest.raises(BadInput, match=r"cannot read recipe .*none.yaml: No such file"):
        read_yaml_file(tmp_path / "none.yaml", "recipe")


def test_aliases_merges_and_marks_that_people_write_are_read(tmp_path):
    text = "base: &a {x: 1, y: 1}\nouter: {mid: &b {<<: *a, x: 2}}\nlast: {<<: [*b, *a], z: 3}\nsame: [*a, *a]\n"
    assert read_yaml(text) == {
        "base": {"x": 1, "y": 1},
        "outer": {"mid": {"x": 2, "y": 1}},
        "last": {"x": 2, "y": 1, "z": 3},
        "same": [{"x": 1, "y": 1}] * 2,
    }
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: on")
    assert read_yaml_file(tmp_path / "a.yaml", "recipe") == {"a": "on"}


def test_text_alone_is_refused_as_shortly():
    with pytest.raises(yaml.YAMLError) as caught:
        read_yaml("[" * 5000)
    assert len(str(caught.value)) < 1000


def test_a_thousand_labels_are_no_bomb():
    assert len(read_yaml("labels:\n" + "".join(f"  intent_{n}: text {n}\n" for n in range(1000)))["labels"]) == 1000
