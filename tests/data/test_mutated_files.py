"""Whatever becomes of a file, its reader gives rows or one error in words, soon. `benchmarks/mutate.py` reads many more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutations import READERS, outcome

SECONDS = 60  # a thousand times what a file takes, for machines differ; the benchmark holds to two


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_mutated_file_gives_rows_or_one_short_error(reader, seed, tmp_path):
    came, seconds, _ = outcome(reader, seed, tmp_path)
    assert came in ("rows", "error")
    assert seconds < SECONDS


@pytest.mark.parametrize("reader", READERS)
def test_the_files_that_are_mutated_are_read_where_nothing_happens_to_them(reader, tmp_path):
    found = {outcome(reader, seed, tmp_path)[0] for seed in range(60)}
    assert found == {"rows", "error"}
