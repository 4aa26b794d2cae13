"""The space that rows span, and what of other rows lies outside it."""

import pytest
import torch

from perdure.maths.projection import joined_basis, outside, row_basis


def test_the_basis_is_orthonormal_and_spans_the_rows_once():
    rows = torch.tensor([[3.0, 0, 0, 0], [1, 1, 0, 0], [4, 1, 0, 0]])
    basis = row_basis(rows)
    assert basis.shape == (2, 4)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2))
    torch.testing.assert_close(rows @ basis.T @ basis, rows)


def test_what_is_outside_is_orthogonal_to_the_basis_and_the_rest_lies_in_it():
    torch.manual_seed(0)
    basis, rows = row_basis(torch.randn(3, 8)), torch.randn(5, 8)
    left = outside(rows, basis)
    assert (left @ basis.T).abs().max() < 1e-6
    torch.testing.assert_close((rows - left) @ basis.T @ basis, rows - left)
    torch.testing.assert_close(outside(left, basis), left)


def test_nothing_of_rows_in_the_space_is_outside():
    basis = row_basis(torch.eye(4)[:2])
    assert torch.equal(outside(torch.tensor([[2.0, -1, 0, 0]]), basis), torch.zeros(1, 4))


def test_of_stacked_matrices_each_has_a_basis_of_its_own():
    torch.manual_seed(0)
    rows = torch.randn(3, 4, 8)
    rows[1, 2:] = rows[1, :2]  # spans two directions only
    basis = row_basis(rows)
    assert basis.shape == (3, 4, 8)
    assert not basis[1, 2:].any()
    left = outside(torch.randn(3, 5, 8), basis)
    for n in range(3):
        alone = row_basis(rows[n])
        torch.testing.assert_close(basis[n, : len(alone)], alone)
        assert (left[n] @ rows[n].T).abs().max() < 1e-5


@pytest.mark.parametrize("stack", [(), (3,)])
def test_a_joined_basis_spans_both_and_begins_with_the_first(stack):
    torch.manual_seed(0)
    basis, rows = row_basis(torch.randn(*stack, 3, 8)), torch.randn(*stack, 2, 8)
    rows = torch.cat([100 * rows, 1e-3 * basis[..., :1, :]], -2)  # and one that lies in the basis
    found = joined_basis(basis, rows)
    assert found.shape == (*stack, 5, 8)
    assert torch.equal(found[..., :3, :], basis)
    torch.testing.assert_close(found @ found.mT, torch.eye(5).expand(*stack, 5, 5))
    whole = row_basis(torch.cat([basis, rows / 100], -2))
    torch.testing.assert_close(found.mT @ found, whole.mT @ whole, rtol=0, atol=1e-5)
    assert outside(rows, found).abs().max() < 1e-4


def test_a_basis_joined_with_what_lies_in_it_is_the_same():
    basis = row_basis(torch.eye(4)[:2])
    assert torch.equal(joined_basis(basis, torch.tensor([[2.0, -1, 0, 0], [0, 0, 0, 0]])), basis)
