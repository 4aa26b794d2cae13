"""Each row has the logits of transformers' own unpadded forward, whatever else is in its batch, on many architectures."""

import pytest
import torch
import torch.nn.functional as F

from architectures import ARCHITECTURES, WINDOW, make
from perdure.core.errors import BadInput
from perdure.data.encode import Encoded
from perdure.editing.prompts import Line
from perdure.editing.site import open_site
from perdure.editing.tails import cut, raise_to, run
from perdure.editing.verification import answers
from perdure.model.decode import choice_log_likelihoods, generate, read_prompts
from perdure.model.forward import Tokens
from perdure.model.probing import batching_of, measure

PAD = 0
SHARED = 20  # more than a window holds
CLOSE = {"rtol": 1e-4, "atol": 2e-5}

EDITED = {  # a dense MLP in each block behind attention
    *(
        "llama",
        "qwen2",
        "qwen2 with a window",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "mistral",
        "phi3",
        "phi",
        "gpt2",
        "gpt_neo",
    ),
    *(
        "gpt_neox",
        "gptj",
        "bloom",
        "mpt",
        "falcon with alibi",
        "falcon",
        "olmo2",
        "olmo3",
        "cohere",
        "cohere2",
        "stablelm",
    ),
    *("starcoder2", "granite", "glm4", "smollm3"),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return make(name).requires_grad_(False)


@pytest.fixture(scope="module")
def texts():
    """Token ids that begin alike and go on for 6, 12 and 25 tokens."""
    draw = torch.Generator().manual_seed(1)
    shared, *tails = (torch.randint(5, 100, (n,), generator=draw).tolist() for n in (SHARED, 6, 12, 25))
    return [shared + tail for tail in tails]


def alone(model, ids):
    """Return the logits (tokens, vocab) of one row, neither padded nor cached."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def test_how_an_architecture_reads_its_rows(name, model):
    assert batching_of(model).decoding == ARCHITECTURES[name][2]
    assert batching_of(model).prefix == (
        ARCHITECTURES[name][2] in ("between", "before") or "bart" in name or "llama4" in name
    )


def test_training_sees_the_logits_and_gradients_of_each_row_alone(model, texts):
    rows = [Encoded(tuple(ids), tuple(t >= len(ids) - 4 for t in range(len(ids)))) for ids in texts]
    reader = Tokens(PAD, batching_of(model).prefix)
    batch = reader.collate(rows)
    assert batch.prefix.numel() == (SHARED if reader.prefix else 0)
    weight = next(p for p in model.parameters() if p.dim() == 2).requires_grad_(
        True
    )  # of the embedding: below all else
    model.train()
    out = reader.forward(model, batch)
    (gradient,) = torch.autograd.grad(F.cross_entropy(out.logits, batch.labels), weight)
    expected = [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -5:-1] for ids in texts]
    (plain,) = torch.autograd.grad(F.cross_entropy(torch.cat(expected), batch.labels), weight)
    model.eval()
    weight.requires_grad_(False)
    torch.testing.assert_close(out.logits, torch.cat(expected), **CLOSE)
    torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-5)
    assert gradient.norm() > 0


def test_packed_rows_have_the_logits_and_gradients_that_each_has_alone_or_the_model_packs_none(name, model, texts):
    batching = measure(model)
    plain = ARCHITECTURES[name][2] == "between" and batching.window is None and batching.positions
    assert batching.packing == (plain and "alibi" not in name)  # whose biases count columns
    if not batching.packing:
        return
    texts = [*texts, texts[0][: SHARED + 2]]
    rows = [Encoded(tuple(ids), tuple(t >= len(ids) - 2 for t in range(len(ids)))) for ids in texts]
    for shared in (SHARED, 0):
        given = [Encoded(row.ids[SHARED - shared :], row.trained[SHARED - shared :]) for row in rows]
        batch = Tokens(PAD, shared > 0, packing=True).collate(given)
        assert batch.packing is not None
        weight = next(p for p in model.parameters() if p.dim() == 2).requires_grad_(True)
        out = Tokens(PAD).forward(model, batch)
        (gradient,) = torch.autograd.grad(F.cross_entropy(out.logits, batch.labels), weight)
        expected = torch.cat([model(torch.tensor([row.ids]), use_cache=False).logits[0, -3:-1] for row in given])
        (plain,) = torch.autograd.grad(F.cross_entropy(expected, batch.labels), weight)
        weight.requires_grad_(False)
        torch.testing.assert_close(out.logits, expected, **CLOSE)
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-5)


def test_generation_says_what_each_prompt_alone_is_answered(model, texts):
    expected = []
    for ids in texts:
        said = list(ids)
        for _ in range(5):
            said.append(int(alone(model, said)[-1].argmax()))
        expected.append(said[len(ids) :])
    stop = expected[0][2]  # one row leaves the batch before the others
    told = [answer[: answer.index(stop)] if stop in answer else answer for answer in expected]
    assert generate(model, texts, max_new_tokens=5, stops=[stop], pad=PAD) == told


def test_prompts_are_read_as_alone_whatever_is_read_behind_them(model, texts):
    expected = torch.stack([alone(model, ids)[-1] for ids in texts])
    with torch.no_grad():
        for more in (None, 0):
            torch.testing.assert_close(read_prompts(model, texts, PAD, more).logits, expected, **CLOSE)


def test_choices_are_as_likely_as_their_own_forward_says(model, texts):
    choices = [[[7], [8, 9, 10]], [[11, 12]], [[13, 14, 15, 16], [17, 18]]]
    found = choice_log_likelihoods(model, texts, choices, pad=PAD)
    for ids, own, told in zip(texts, choices, found, strict=True):
        for choice, value in zip(own, told, strict=True):
            chances = alone(model, [*ids, *choice]).log_softmax(-1)[len(ids) - 1 :]
            expected = sum(chances[t, token].item() for t, token in enumerate(choice))
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-4)


class NoTokenizer:
    pad_token_id = PAD


def test_editing_reads_the_logits_of_each_row_alone(name, model, texts):
    if name not in EDITED:
        with pytest.raises(BadInput), open_site(model, NoTokenizer()):
            pass
        return
    lines = [
        Line(tuple(ids), first=len(ids) - 8 - n, last=len(ids) - 6 - n, answer=len(ids) - 3)
        for n, ids in enumerate(texts)
    ]
    expected = [alone(model, ids)[-4:-1] for ids in texts]
    with open_site(model, NoTokenizer()) as site, torch.no_grad():
        tails = cut(site, lines)
        at = torch.tensor([(row, t) for row, own in enumerate(tails.answers) for t, _ in own]).T
        for some in (tails, raise_to(site, tails, 1), tails.rows([0, 1, 2])):
            torch.testing.assert_close(run(site, some, at), torch.cat(expected), **CLOSE)
        for line, logits, (loss, _) in zip(lines, expected, answers(site, lines), strict=True):
            assert loss == pytest.approx(F.cross_entropy(logits, torch.tensor(line.ids[-3:])).item(), rel=1e-4)


def test_texts_are_longer_than_the_windows(texts):
    assert WINDOW < SHARED < min(map(len, texts))
