"""What the papers' formulas give of the methods that Avalanche has not, and what published code makes of the same.

Part of `golden.py`. Each function is a method, written out in plain torch from the equation it names; "published" is code of
a public repository, which is read from a clone and not run beyond the functions named here, "torch" what torch itself has.
"""

import copy
import math
import random
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from golden_problem import (
    NEW_X,
    NEW_Y,
    NOW,
    OLD_X,
    OLD_Y,
    PATH,
    RATE,
    SETTLED,
    flat,
    gradient,
    gradients_now,
    network,
    published,
)
from scipy.optimize import minimize_scalar
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

TEMPERATURE, EPSILON, DECAY, RADIUS, TAIL = 2.0, 0.3, 0.8, 0.4, 3
CLONES = {  # repository: commit that was run
    "Cranial-XIX/CAGrad": "dc3d48152b6196945cfd56144879b9d42353b095",
    "MehdiAbbanaBennani/continual-learning-ogdplus": "b633f2c5949f6ea165e2e76aab3d043065d770a8",
    "WeiChengTseng/Pytorch-PCGrad": "e987ac603fa1accd386820a985a6dc2fd92dec5b",
    "mlfoundations/wise-ft": "58b7a4b343b09dc06606aa929c2ef51accced8d1",
    "optimass/Maximally_Interfered_Retrieval": "35eda78bcdd35025b16b0b1039a926d34aad4851",
}


def logits(weights, x):
    with torch.no_grad():
        return network(weights)(x)


def features(weights, x):
    with torch.no_grad():
        return network(weights)[:2](x)


def losses(weights, x, y):
    return F.cross_entropy(logits(weights, x), y, reduction="none")


def l2(clones):
    """Li et al. 2018 (L2-SP): alpha / 2 |w - w0|^2, or alpha / 2 |w|^2 from 0; here also of a product of two factors."""
    up, down = NOW["2.weight"][:, :2], NOW["0.weight"][:2]
    up0, down0 = SETTLED["2.weight"][:, :2], SETTLED["0.weight"][:2]
    return {
        "paper": {
            "penalty": 0.5 * (flat(NOW) - flat(SETTLED)).square().sum(),
            "product": 0.5 * (up @ down - up0 @ down0).square().sum(),
            "product_from_zero": 0.5 * (up @ down).square().sum(),
        }
    }


def hler(clones):
    """Song et al. 2025: importance of elements along the path, and a softmax of each layer's norm."""
    model = network(SETTLED)
    importance = gradient(model, F.cross_entropy(model(OLD_X), OLD_Y)).abs()
    importance = importance / importance.mean()
    moved = flat(NOW) - flat(SETTLED)
    layers = importance.split([16, 20])  # weights and biases of the two
    printed = torch.stack([layer.norm() for layer in layers]).softmax(0)
    ours = 2 * torch.stack([layer.square().mean().sqrt() for layer in layers]).softmax(0)
    parts = torch.stack(
        [(layer * way.square()).sum() for layer, way in zip(layers, moved.split([16, 20]), strict=True)]
    )
    return {
        "importance": importance,
        "paper": {"factors": printed, "penalty": (printed * parts).sum()},
        "by_root_mean_square": {"factors": ours, "penalty": 0.5 * (ours * parts).sum()},
    }


def distill(clones):
    """Hinton et al. 2015, section 2: the divergence of softened outputs, times T^2; torch's own kl_div of the same."""
    teacher, student = (logits(weights, OLD_X) for weights in (SETTLED, NOW))
    p, q = (value.div(TEMPERATURE).softmax(-1) for value in (teacher, student))
    forward, reverse = (p * (p / q).log()).sum(-1).mean(), (q * (q / p).log()).sum(-1).mean()
    square = TEMPERATURE**2
    by_torch = F.kl_div(q.log(), p, reduction="batchmean")
    return {
        "temperature": TEMPERATURE,
        "paper": {
            "forward": square * forward,
            "reverse": square * reverse,
            "symmetric": square * (forward + reverse) / 2,
        },
        "torch": {"forward": square * by_torch},
    }


def instruction_replay(clones):
    """Scialom et al. 2022, and Li & Hoiem 2016: cross-entropy on rehearsed rows, and their divergence from the base model."""
    cross, kl = losses(NOW, OLD_X, OLD_Y).mean(), distill(clones)["paper"]["forward"]
    return {"strength": 0.5, "distill": 2.0, "paper": {"loss": 0.5 * cross + 2.0 * kl}}


def surprise_replay(clones):
    """Hazard et al. 2025: surprise is the mean negative log-likelihood; the most surprising rows are kept."""
    surprise = losses(SETTLED, OLD_X, OLD_Y)
    return {
        "paper": {
            "surprise": surprise,
            "kept": surprise.argsort(descending=True)[:3],
            "replayed": losses(NOW, OLD_X, OLD_Y).mean(),
        }
    }


def importance_replay(clones):
    """Schaul et al. 2016, eq. 1 and section 3.4; Sanyal et al. 2025: w = P / Q, P from exp(-loss before), Q from loss^a."""
    before, now = losses(SETTLED, OLD_X, OLD_Y), losses(NOW, OLD_X, OLD_Y)
    p = (-before / before.sort().values[2]).softmax(0)  # the lower of the two middle losses
    q = now.sqrt() / now.sqrt().sum()
    w = (p / q).clamp(max=1.2)
    w = w / (q * w).sum()
    drawn = [1, 4]
    return {"clip": 1.2, "drawn": drawn, "paper": {"p": p, "q": q, "w": w, "loss": (w * now)[drawn].mean()}}


def forgetting_curve(clones):
    """Feng et al. 2026: a day is the path of the first updates; reviews on days 1, 2, 4, 7, 15 and 30."""
    steps = [flat(after) - flat(before) for before, after in zip([NOW, *PATH], PATH, strict=False)]
    age = torch.stack([step.norm() for step in steps]).cumsum(0)
    reviews = [sum(float(now >= days * age[0]) for days in (1, 2, 4, 7, 15, 30)) for now in age]
    lately = age[0]
    for step in steps[1:]:
        lately = 0.95 * lately + 0.05 * step.norm()
    haste = (lately / age[0]).clamp(0.5, 3)
    pull = haste * (flat(PATH[-1]) - flat(NOW)).square().sum()
    return {"paper": {"age": age, "reviews": reviews, "loss": losses(PATH[-1], OLD_X, OLD_Y).mean() + 0.1 * pull}}


def perturbed(x, y, steps, stride):
    """Return the mean loss where each row is moved up its loss, within EPSILON times its length."""
    model, radius, moved = network(NOW), EPSILON * x.norm(dim=-1, keepdim=True), torch.zeros_like(x)
    for _ in range(steps):
        at = (x + moved).requires_grad_()
        (up,) = torch.autograd.grad(F.cross_entropy(model(at), y, reduction="sum"), at)
        moved = moved + stride * radius * up / up.norm(dim=-1, keepdim=True)
        moved = moved * (radius / moved.norm(dim=-1, keepdim=True)).clamp(max=1)
    return losses(NOW, x + moved, y).mean()


def adversarial(clones):
    """Miyato et al. 2017, eq. 5: r = epsilon g / |g|. Madry et al. 2018, section 2.1: steps up, cut back to the ball."""
    return {
        "epsilon": EPSILON,
        "paper": {"fgm": perturbed(NEW_X, NEW_Y, 1, 1.0), "pgd": perturbed(NEW_X, NEW_Y, 3, 2 / 3)},
    }


def adversarial_replay(clones):
    """Miyato et al. 2017, eq. 5, on replayed rows."""
    return {"epsilon": EPSILON, "paper": {"fgm": perturbed(OLD_X, OLD_Y, 1, 1.0)}}


def ogd(clones):
    """Farajtabar et al. 2020, algorithm 1: Gram-Schmidt over rows' gradients, and g less its part along each."""
    model, new = network(SETTLED), gradients_now()[0]
    log_p, found = model(OLD_X).log_softmax(-1), []
    rows = torch.stack([gradient(model, log_p[n, OLD_Y[n]]) for n in range(6)])
    for row in rows:
        left = row - sum(((row @ u) * u for u in found), torch.zeros_like(row))
        found.append(left / left.norm())
    orthonormalize, project = published(
        clones,
        "MehdiAbbanaBennani/continual-learning-ogdplus",
        "ogd/tools.py",
        *("orthonormalize", "project_vec"),
        tqdm=lambda them, desc: them,
    )
    theirs = new - project(new, orthonormalize(rows.T.clone(), gpu=False), gpu=False)
    paper = {"rows": rows.reshape(-1), "projected": new - sum((new @ u) * u for u in found)}
    return {"paper": paper, "published": {"projected": theirs}}


def pcgrad(clones):
    """Yu et al. 2020, algorithm 1, of two tasks."""
    new, halves = gradients_now()
    old = torch.stack(halves).mean(0)
    along = new @ old
    assert along < 0
    paper = new - along / (old @ old) * old + old - along / (new @ new) * new
    (theirs,) = published(
        clones, "WeiChengTseng/Pytorch-PCGrad", "pcgrad.py", "PCGrad", copy=copy, random=random, pdb=None
    )
    every = torch.ones_like(new)
    summed = theirs(None, reduction="sum")._project_conflicting([new.clone(), old.clone()], [every, every])
    return {"paper": {"projected": paper}, "published": {"projected_when_asked_for_the_sum": summed}}


def cagrad(clones):
    """Liu et al. 2021, algorithm 1: g0 + c |g0| / |g_w| g_w, w the minimum of g_w.g0 + c |g0| |g_w|."""
    new, halves = gradients_now()
    old = torch.stack(halves).mean(0)
    mean = (new + old) / 2

    def worst(w):
        mix = w * new + (1 - w) * old
        return float(mix @ mean + RADIUS * mean.norm() * mix.norm())

    w = minimize_scalar(worst, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).x
    mix = w * new + (1 - w) * old
    (theirs,) = published(clones, "Cranial-XIX/CAGrad", "toy.py", "cagrad", minimize_scalar=minimize_scalar)
    return {
        "radius": RADIUS,
        "paper": {"projected": mean + RADIUS * mean.norm() / mix.norm() * mix},
        "published": {"projected": theirs(torch.stack([new, old], 1), c=RADIUS)},
    }


def contrastive(clones):
    """Khosla et al. 2020, eq. 3 (L_in): - log( 1/|P| sum over own of e^(z.o / T) / sum over all of e^(z.a / T) )."""
    own, older = (F.normalize(features(SETTLED, x)[:n], dim=-1) for x, n in ((NEW_X, 2), (OLD_X, 3)))
    z = F.normalize(features(NOW, NEW_X), dim=-1)
    mine, others = ((z @ side.T / TEMPERATURE).exp() for side in (own, older))
    loss = -(mine.mean(-1) / (mine.sum(-1) + others.sum(-1))).log()
    return {
        "temperature": TEMPERATURE,
        "own": own.reshape(-1),
        "older": older.reshape(-1),
        "paper": {"loss": loss.mean(), "of_the_number_of_positives": math.log(len(own))},
    }


def averaged(model, weights, paths):
    for path in paths:
        weights.load_state_dict(path)
        model.update_parameters(weights)
    return flat(model.module.parameters())


def ema(clones):
    """Tarvainen & Valpola 2017: slow <- decay slow + (1 - decay) w; torch's own average of the same."""
    slow = flat(NOW)
    for weights in PATH:
        slow = DECAY * slow + (1 - DECAY) * flat(weights)
    by_torch = AveragedModel(network(NOW), multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    return {"decay": DECAY, "paper": {"slow": slow}, "torch": {"slow": averaged(by_torch, network(NOW), [NOW, *PATH])}}


def i_lora(clones):
    """Ren et al. 2024, algorithm 1: CE on memory + gamma MSE of hidden states to the slow weights', which then follow."""
    error = (features(NOW, OLD_X) - features(SETTLED, OLD_X)).square().mean()
    return {
        "decay": DECAY,
        "consistency": 2.0,
        "paper": {
            "loss": losses(NOW, OLD_X, OLD_Y).mean() + 2.0 * error,
            "slow": DECAY * flat(SETTLED) + (1 - DECAY) * flat(NOW),
        },
    }


def token_weight(clones):
    """Wu et al. 2025 (DFT), Diao et al. 2026 (EAFT, over 3), Wu et al. 2025 (STM), Sanyal et al. 2025 (FLOW, algorithm 1)."""
    p = logits(NOW, NEW_X).softmax(-1)
    before, threshold = losses(SETTLED, NEW_X, NEW_Y), 6.0
    return {
        "threshold": threshold,
        "paper": {
            "dft": p[torch.arange(6), NEW_Y],
            "eaft": -(p * p.log()).sum(-1) / 3,
            "stm": (before.exp() <= threshold).double(),
            "flow": (-before / np.median(before.numpy())).exp(),
        },
    }


def tail_average(clones):
    """Izmailov et al. 2018, algorithm 1: the mean of the last weights; torch's own average of the same."""
    mean = torch.stack([flat(weights) for weights in PATH[-TAIL:]]).mean(0)
    by_torch = AveragedModel(network(NOW))
    return {"tail": TAIL, "paper": {"mean": mean}, "torch": {"mean": averaged(by_torch, network(NOW), PATH[-TAIL:])}}


def wise_ft(clones):
    """Wortsman et al. 2022, section 3: (1 - alpha) zero-shot + alpha fine-tuned, weight by weight."""
    model = network(NOW)
    for _ in range(10):
        step = gradient(model, F.cross_entropy(model(NEW_X), NEW_Y))
        torch.nn.utils.vector_to_parameters(flat(model.parameters()) - step, model.parameters())
    tuned = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def between(share):
        return {name: (1 - share) * tuned[name] + share * NOW[name] for name in NOW}

    grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]  # of the weights before
    both = [float(losses(between(s), NEW_X, NEW_Y).mean() + losses(between(s), OLD_X, OLD_Y).mean()) for s in grid]
    (merge,) = published(clones, "mlfoundations/wise-ft", "src/wise_ft.py", "_merge")
    return {
        "tuned": flat(tuned),
        "paper": {"half": flat(between(0.5)), "losses": both, "best": flat(between(grid[int(np.argmin(both))]))},
        "published": {"half": flat(merge(0.5, NOW, tuned, None, None))},
    }


def mir(clones):
    """Aljundi et al. 2019b, algorithm 1: w' = w - rate x gradient of the new rows; the largest CE(w') - CE(w) first."""
    model = network(NOW)
    step = gradient(model, F.cross_entropy(model(NEW_X), NEW_Y))
    parts = step.split([value.numel() for value in NOW.values()])
    virtual = {n: w - RATE * g.reshape(w.shape) for (n, w), g in zip(NOW.items(), parts, strict=True)}
    rise = losses(virtual, OLD_X, OLD_Y) - losses(NOW, OLD_X, OLD_Y)
    _, future = published(
        clones,
        "optimass/Maximally_Interfered_Retrieval",
        "utils.py",
        *("overwrite_grad", "get_future_step_parameters"),
        copy=copy,
    )
    sizes = [value.numel() for value in NOW.values()]
    theirs = OrderedDict(future(model, step, sizes, lr=RATE).state_dict())
    worst = rise.argsort(descending=True)
    return {
        "rate": RATE,
        "paper": {"rise": rise, "worst": worst, "replayed": losses(NOW, OLD_X, OLD_Y)[worst[:3]].mean()},
        "published": {"rise": losses(theirs, OLD_X, OLD_Y) - losses(NOW, OLD_X, OLD_Y)},
    }


PAPERS = (
    *(l2, hler, distill, instruction_replay, surprise_replay, importance_replay, forgetting_curve),
    *(
        adversarial,
        adversarial_replay,
        ogd,
        pcgrad,
        cagrad,
        contrastive,
        ema,
        i_lora,
        token_weight,
        tail_average,
        wise_ft,
    ),
)
