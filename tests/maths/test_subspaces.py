"""Leading directions outside a subspace, the energy that one holds, and the singular spaces of a weight."""

import pytest
import torch

from perdure.maths.subspaces import energy_outside, extended, high_spaces, leading_outside

NOTHING = torch.zeros(0, 4)
E1 = torch.tensor([[1.0, 0, 0, 0]])
H = torch.tensor(
    [[9.0, 2, 0, 0], [2, 4, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]
)  # of inputs whose first two numbers go together


def gaussian(seed, rank, width=12):
    torch.manual_seed(seed)
    x = torch.randn(40, rank) @ torch.randn(rank, width)
    return x.T @ x / 40


def test_golden_with_the_first_direction_taken_the_rest_is_what_is_left_of_each_input():
    """P H P is diag(0, 4, 3, 1): its eigenvectors are unit vectors, though those of H are not."""
    torch.testing.assert_close(leading_outside(H, E1, 2), torch.eye(4, dtype=torch.float64)[1:3])
    assert energy_outside(H, E1) == pytest.approx(8 / 17)
    free = leading_outside(H, NOTHING, 1)[0]
    assert free[0] > 0.9
    assert free[1] > 0.1  # leans to the second


def test_golden_it_takes_the_fewest_directions_that_reach_the_share():
    """Of 17: e1 has 9, then come 4, 3 and 1."""
    for share, directions in [(9 / 17, 1), (9.1 / 17, 2), (13 / 17, 2), (13.1 / 17, 3), (16.1 / 17, 4), (1.0, 4)]:
        found = extended(E1, H, share)
        assert len(found) == directions
        assert torch.equal(found[:1], E1)
        torch.testing.assert_close(found, torch.eye(4)[:directions])
        assert energy_outside(H, found) <= 1 - share + 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rank", [2, 5, 12])
def test_what_is_found_is_orthonormal_and_outside_even_where_nothing_is_left_to_find(seed, rank):
    basis = extended(torch.zeros(0, 12), gaussian(seed, 6), 0.9)
    moment = gaussian(seed + 100, rank)
    count = 12 - len(basis)
    found = leading_outside(moment, basis, count)
    torch.testing.assert_close(found @ found.T, torch.eye(count, dtype=torch.float64))
    assert (found @ basis.double().T).abs().max() < 1e-12
    assert torch.equal(found, leading_outside(moment, basis, count))
    values = (found @ moment.double() @ found.T).diagonal()
    assert (values.diff() < 1e-9).all()  # the largest come first
    whole = extended(basis, moment, 1.0)
    assert (whole @ whole.T - torch.eye(len(whole))).abs().max() < 1e-5
    assert energy_outside(moment, whole) == pytest.approx(0, abs=1e-6)
    assert torch.equal(extended(whole, moment, 0.9), whole)


def test_of_no_energy_nothing_is_taken_and_all_is_outside():
    zero = torch.zeros(4, 4)
    assert energy_outside(zero, E1) == 1.0
    assert torch.equal(extended(E1, zero, 1.0), E1)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7), (3, 6, 9), (3, 9, 6)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_high_spaces_are_those_of_a_singular_value_decomposition(shape, share):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    kept = round(share * min(shape[-2:]))
    left, _, right = torch.linalg.svd(weight.double(), full_matrices=False)
    for found, known in zip(high_spaces(weight, share), (left[..., :kept].mT, right[..., :kept, :]), strict=True):
        assert found.shape == known.shape
        torch.testing.assert_close((found.mT @ found).double(), known.mT @ known, rtol=0, atol=1e-5)
        torch.testing.assert_close(found @ found.mT, torch.eye(kept).expand_as(found @ found.mT), rtol=0, atol=1e-6)
