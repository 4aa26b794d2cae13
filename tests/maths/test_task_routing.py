"""Routing by closed form: the discriminant of two Gaussians, moments that add up, distances that tell what is unknown."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from perdure.maths.clusters import k_means
from perdure.maths.routing import (
    Gaussian,
    Moments,
    added,
    clustered,
    conformal_limit,
    fit,
    nearest_centroid,
    shrunk,
)


def drawn(seed, n=40, dims=5, at=0.0):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed)) + at


def equal(one, other):
    return all(
        torch.equal(value, vars(other)[name]) if torch.is_tensor(value) else value == vars(other)[name]
        for name, value in vars(one).items()
    )


@pytest.fixture
def tasks():
    labels = ["a", "b"] * 20
    return {
        "near": fit(drawn(0), labels, held=drawn(10, 20)),
        "far": fit(drawn(1, at=4.0), labels, held=drawn(11, 20, at=4.0)),
        "third": fit(drawn(2, at=-4.0), ["c"] * 40, held=drawn(12, 20, at=-4.0)),
    }


def test_moments_are_counts_means_and_scatter_around_the_mean_of_the_label():
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0], [5.0, 3.0], [5.0, 5.0]])
    made = fit(features, ["x", "x", "y", "y", "y"])
    assert made.labels == ("x", "y")
    assert made.counts.tolist() == [2, 3]
    assert made.means.tolist() == [[1, 0], [5, 3]]
    assert made.scatter.tolist() == [[2, 0], [0, 8]]  # (-1)^2 + 1^2, and (-2)^2 + 2^2
    assert made.held.shape == (0, 2)


def test_the_scores_are_those_of_the_discriminant_of_gaussians_with_one_covariance():
    made = fit(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 1.0], [4.0, 3.0]]), ["x", "x", "y", "y"])
    shrunk = 0.9 * torch.tensor([[0.5, 0.0], [0.0, 0.5]]) + 0.1 * 0.5 * torch.eye(2)  # S/n = diag(2, 2) / 4
    point = torch.tensor([[3.0, 7.0]])
    expected = [m @ shrunk.inverse() @ point[0] - m @ shrunk.inverse() @ m / 2 for m in made.means]
    torch.testing.assert_close(Gaussian.of({"t": made}).scores(point)[0], torch.stack(expected).double())


def test_differences_of_scores_are_half_differences_of_squared_distances_to_the_means(tasks):
    gaussian, points = Gaussian.of(tasks), drawn(5).double()
    means = torch.cat([tasks[name].means for name in sorted(tasks)]).double()
    apart = points[:, None] - means
    squared = torch.einsum("ncd,de,nce->nc", apart, gaussian.within, apart)
    scores = gaussian.scores(points)
    torch.testing.assert_close(scores - scores[:, :1], -(squared - squared[:, :1]) / 2)


def test_each_row_goes_to_the_owner_of_its_best_class_which_also_has_the_largest_posterior(tasks):
    gaussian = Gaussian.of(tasks)
    assert gaussian.owners == ("far", "far", "near", "near", "third")
    assert gaussian.labels == ("a", "b", "a", "b", "c")
    points = torch.cat([drawn(20), drawn(21, at=4.0), drawn(22, at=-4.0)])
    best = [gaussian.owners[n] for n in gaussian.scores(points).argmax(-1)]
    assert sum(a == b for a, b in zip(best, ["near"] * 40 + ["far"] * 40 + ["third"] * 40, strict=True)) >= 118
    decided = gaussian.decide(points)
    assert [max(row, key=row.__getitem__) for row in decided.posterior] == best
    assert all(math.isclose(sum(row.values()), 1) for row in decided.posterior)
    assert all(task in (None, own) for task, own in zip(decided.tasks, best, strict=True))


def test_a_row_far_from_every_task_is_unknown_and_few_known_rows_are(tasks):
    gaussian = Gaussian.of(tasks)
    away = torch.zeros(10, 5)
    away[:, 0], away[:, 1] = 40.0, -40.0
    assert gaussian.route(away) == [None] * 10
    held = torch.cat([part.held for part in tasks.values()])
    assert gaussian.route(held).count(None) == 2  # the limit is the 58th of 60: 0.95 * 61 = 57.95


def with_held(tasks, rows):
    """Return the tasks with these rows as the only held-out ones."""
    none = {name: replace(part, held=part.held[:0]) for name, part in tasks.items()}
    return {**none, "near": replace(tasks["near"], held=rows)}


@pytest.mark.parametrize("n", [0, 1, 8, 16, 18])
def test_with_fewer_than_19_held_out_rows_no_row_is_unknown(tasks, n):
    gaussian = Gaussian.of(with_held(tasks, drawn(10, n)))
    assert gaussian.limit == math.inf
    assert None not in gaussian.route(100 * drawn(3))


def test_the_limit_of_19_held_out_rows_is_the_largest_of_their_distances(tasks):
    gaussian = Gaussian.of(with_held(tasks, drawn(10, 19)))
    assert gaussian.limit == gaussian.distances(drawn(10, 19)).max()


def test_probabilities_are_as_sure_as_held_out_rows_are_right_and_no_row_changes_its_task(tasks):
    wider = {
        name: replace(part, held=part.held + 3 * drawn(30 + n, 20)) for n, (name, part) in enumerate(tasks.items())
    }
    fitted = Gaussian.of(wider)
    plain = replace(fitted, temperature=1.0)
    held = torch.cat([wider[name].held for name in fitted.tasks])
    right = torch.arange(3).repeat_interleave(20)[:, None]

    def loss(gaussian):
        return -gaussian.posterior(held).gather(1, right).log().mean().item()

    assert fitted.temperature > 1
    assert loss(fitted) < loss(plain)
    assert all(
        loss(fitted) <= loss(replace(fitted, temperature=fitted.temperature * f)) for f in (0.9, 0.99, 1.01, 1.1)
    )
    assert fitted.route(held) == plain.route(held)


def test_rows_that_are_all_right_and_fewer_than_19_leave_the_temperature_at_1(tasks):
    assert Gaussian.of(tasks).temperature == 1
    few = {name: replace(part, held=drawn(40, 6)) for name, part in tasks.items()}
    assert Gaussian.of(few).temperature == 1  # 18 rows, most of them not where their task is
    assert Gaussian.of({**few, "near": replace(few["near"], held=drawn(40, 7))}).temperature > 1


@pytest.mark.parametrize(
    ("n", "share", "k"),
    [(19, 0.05, 19), (38, 0.05, 38), (39, 0.05, 38), (99, 0.01, 99), (299, 0.01, 297), (99, 0.29, 71), (3, 0.25, 3)],
)
def test_the_limit_is_the_smallest_distance_of_rank_k(n, share, k):
    distances = torch.randperm(n, generator=torch.manual_seed(n)).double() + 1
    assert conformal_limit(distances, share) == k
    assert conformal_limit(distances, 0.0) == math.inf


@pytest.mark.parametrize(("n", "share"), [(18, 0.05), (98, 0.01), (2, 0.25), (0, 0.5)])
def test_where_even_the_largest_distance_is_exceeded_too_often_there_is_no_limit(n, share):
    assert conformal_limit(torch.arange(n).double(), share) == math.inf


@pytest.mark.parametrize("n", [8, 19, 25, 39, 60])
def test_of_rows_that_are_held_out_all_but_one_the_last_is_unknown_for_one_in_twenty(tasks, n):
    rows = torch.cat([drawn(n, (n + 1) // 2), drawn(n + 1, n + 1 - (n + 1) // 2, at=4.0)])
    unknown = 0
    for last in range(n + 1):
        gaussian = Gaussian.of(with_held(tasks, torch.cat([rows[:last], rows[last + 1 :]])))
        unknown += gaussian.route(rows[last : last + 1]) == [None]
    assert unknown == (n + 1) // 20  # each row is the last one equally often: this is the share, with no assumption


@pytest.mark.parametrize(("n", "expected"), [(8, 0.0), (19, 1 / 20), (25, 1 / 26), (60, 3 / 61)])
def test_new_rows_of_known_tasks_are_unknown_as_rarely_as_promised_whatever_their_distribution(tasks, n, expected):
    draws, generator = 4000, torch.manual_seed(n)
    noise = torch.randn(draws * (n + 1), 5, generator=generator)
    heavy = noise / torch.rand(len(noise), 1, generator=generator)  # tails far beyond those of the fitted rows
    distances = Gaussian.of(tasks).distances(heavy).reshape(draws, n + 1)
    unknown = sum(row[-1].item() > conformal_limit(row[:-1]) for row in distances)
    spread = math.sqrt(expected * (1 - expected) / draws)
    assert abs(unknown / draws - expected) <= 4 * spread
    assert expected <= 0.05


def test_the_relative_distance_is_to_the_nearest_class_minus_to_all_rows_as_one():
    features = torch.cat([drawn(0, 30, 3), drawn(1, 30, 3, at=3.0)])
    gaussian = Gaussian.of({"one": fit(features[:30], ["a"] * 30), "two": fit(features[30:], ["a"] * 30)})
    rows = features.double()
    apart = rows - rows.mean(0)
    whole = apart.T @ apart / len(rows)
    shrunk = 0.9 * whole + 0.1 * whole.trace() / 3 * torch.eye(3, dtype=torch.float64)
    centre = rows - rows.mean(0)
    overall = (centre @ shrunk.inverse() * centre).sum(-1)
    means = torch.stack([rows[:30].mean(0), rows[30:].mean(0)])
    nearest = torch.stack([((rows - m) @ gaussian.within * (rows - m)).sum(-1) for m in means]).amin(0)
    torch.testing.assert_close(gaussian.distances(features), nearest - overall, rtol=1e-4, atol=1e-4)


def test_no_order_of_the_tasks_changes_a_bit_and_a_task_left_out_was_never_there(tasks):
    made = Gaussian.of(tasks)
    for order in itertools.permutations(tasks):
        assert equal(Gaussian.of({name: tasks[name] for name in order}), made)
    two = {name: tasks[name] for name in ("near", "third")}
    grown = Gaussian.of({**two, "far": tasks["far"]})
    assert not torch.equal(grown.within, Gaussian.of(two).within)
    assert equal(Gaussian.of({name: part for name, part in tasks.items() if name != "far"}), Gaussian.of(two))


def test_moments_are_the_same_after_they_were_tensors(tasks):
    for part in (*tasks.values(), clustered(drawn(3), [0, 1, 2], held=drawn(4, 3))):
        assert equal(Moments.from_tensors(part.to_tensors()), part)
    assert tasks["near"].to_tensors().keys() == {"count/a", "count/b", "mean/a", "mean/b", "scatter", "held"}
    assert tasks["near"].to_tensors()["scatter"].shape == (15,)


def test_rows_that_do_not_vary_go_to_the_nearest_mean():
    moments = {"one": fit(torch.zeros(3, 2), ["a"] * 3), "two": fit(torch.ones(3, 2), ["a"] * 3)}
    assert Gaussian.of(moments).route(torch.tensor([[0.1, 0.2], [0.9, 0.7]])) == ["one", "two"]


def test_clusters_are_classes_without_labels_and_none_is_empty():
    features = torch.cat([drawn(0, 10, at=-9.0), drawn(1, 10, at=9.0)])
    made = clustered(features, [0, 1, 10])
    assert set(made.labels) == {None}
    assert made.counts.sum() == 20
    assert (made.counts > 0).all()
    again = clustered(torch.zeros(4, 2), [0, 1, 2])  # three centres at one place
    assert again.counts.tolist() == [4]


def test_k_means_ends_where_each_centre_is_the_mean_of_the_points_nearest_to_it():
    features = torch.cat([drawn(0, 20, at=-5.0), drawn(1, 20, at=5.0)])
    centres, owner = k_means(features, [0, 25])
    assert owner.tolist() == [0] * 20 + [1] * 20
    torch.testing.assert_close(centres, torch.stack([features[:20].mean(0), features[20:].mean(0)]))


def test_the_nearest_centroid_is_by_cosine_whatever_the_lengths():
    centroids = {"two": torch.tensor([[0.0, 100.0]]), "one": torch.tensor([[1e-3, 0.0], [0.0, -1.0]])}
    tasks, cosine = nearest_centroid(torch.tensor([[9.0, 1.0], [1.0, 9.0], [0.0, -5.0]]), centroids)
    assert tasks == ["one", "two", "one"]
    torch.testing.assert_close(cosine, torch.tensor([9 / 82**0.5, 9 / 82**0.5, 1.0]))


def test_moments_of_two_parts_are_those_of_all_rows_whatever_classes_each_has():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(30, 5, generator=generator)
    labels = [*"abab" * 4, *"bcbc" * 3, "c", "c"]
    both, whole = added(fit(rows[:16], labels[:16]), fit(rows[16:], labels[16:])), fit(rows, labels)
    assert both.labels == whole.labels == ("a", "b", "c")
    assert both.counts.tolist() == whole.counts.tolist()
    torch.testing.assert_close(both.means, whole.means)
    torch.testing.assert_close(both.scatter, whole.scatter, atol=1e-5, rtol=1e-5)


def test_shrinkage_moves_eigenvalues_to_their_mean_and_keeps_their_sum():
    covariance = torch.diag(torch.tensor([4.0, 1.0, 1.0])).double()
    assert shrunk(covariance, 0.5).diag().tolist() == [3.0, 1.5, 1.5]
    assert torch.equal(shrunk(covariance, 1.0), 2 * torch.eye(3).double())
    assert torch.equal(shrunk(0 * covariance, 0.5), torch.eye(3).double())  # rows that do not vary at all


def test_a_label_that_reads_like_a_cluster_is_stored_as_a_label():
    labels = ["cluster/a", "cluster/a", "\\b", "\\b", "c", "c"]
    made = Moments.from_tensors(fit(drawn(0, 6), labels).to_tensors())
    assert sorted(made.labels) == ["\\b", "c", "cluster/a"]


def test_clusters_of_rows_that_are_added_stand_beside_the_older_ones_and_labels_are_merged():
    first, second = clustered(drawn(0, 20), [0, 5]), clustered(drawn(1, 20, at=9.0), [0, 5, 9])
    both = added(first, second)
    assert both.labels == (None,) * (len(first.labels) + len(second.labels))
    assert torch.equal(both.means, torch.cat([first.means, second.means]))
    assert torch.equal(both.counts, torch.cat([first.counts, second.counts]))
    torch.testing.assert_close(both.scatter, first.scatter + second.scatter)
    mixed = added(fit(drawn(2, 4), ["x", "x", "y", "y"]), first)
    assert mixed.labels == ("x", "y", *first.labels)
    assert added(mixed, fit(drawn(3, 2), ["y", "y"])).counts.tolist() == [2, 4, *first.counts.tolist()]


def test_the_nearest_clusters_become_one_where_there_are_too_many():
    near, far = fit(drawn(0, 6), [None] * 6), fit(drawn(1, 4, at=50.0), [None] * 4)
    other = fit(drawn(2, 8, at=0.5), [None] * 8)
    made = added(added(near, far), other, most=2)
    whole = fit(torch.cat([drawn(0, 6), drawn(2, 8, at=0.5)]), [None] * 14)
    assert sorted(made.counts.tolist()) == [4, 14]
    torch.testing.assert_close(made.means[made.counts.argmax()], whole.means[0])
    torch.testing.assert_close(made.scatter, whole.scatter + far.scatter)
    assert len(added(near, far, most=2).labels) == 2
