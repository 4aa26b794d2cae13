"""`perdure.ledger.records` has every public class of its files, each under the file that defines it."""

from importlib import import_module
from pathlib import Path

import pytest

from perdure.core.records import Record
from perdure.ledger import records

FOLDER = Path(records.__file__).parent


def test_every_file_is_listed():
    assert set(records.FILES) == {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("file", sorted(records.FILES))
def test_every_record_of_a_file_is_listed(file):
    module, names = import_module(f"perdure.ledger.records.{file}"), records.FILES[file]
    own = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__
    }
    assert own <= set(names) <= set(vars(module))
    assert all(getattr(records, name) is getattr(module, name) for name in names)


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="nothing"):
        _ = records.nothing
