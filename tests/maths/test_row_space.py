"""The space that rows span, and what of other rows lies outside it."""

import torch

from perdure.maths.projection import outside, row_basis


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
