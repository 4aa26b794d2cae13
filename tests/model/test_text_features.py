"""Features of texts: on every architecture what transformers' own hidden states give, alone or in a batch, and no more blocks."""

import pytest
import torch

from architectures import ARCHITECTURES, make
from perdure.data.encode import Encoded
from perdure.model.forward import Tokens
from perdure.model.layers import decoder_blocks
from perdure.model.text_features import LONGEST, default_layer, own_tokens, template_of, text_features

TEXTS = [
    (11, 12, 13, 14, 15, 16, 17),
    (21, 22),
    (31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49),
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_every_architecture_it_is_the_mean_over_the_tokens_behind_the_opening_one(name):
    model = make(name)
    _, blocks = decoder_blocks(model)
    seen = []
    hook = blocks[0].register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    made = text_features(model, TEXTS, opening=1, layer=1)
    seen.clear()
    with torch.no_grad():
        for text in TEXTS:
            model(input_ids=torch.tensor([[1, *text]]), use_cache=False)
    hook.remove()
    expected = torch.stack([hidden[0, 1:].float().mean(0) for hidden in seen])
    torch.testing.assert_close(made / expected.std(), expected / expected.std(), rtol=1e-4, atol=1e-4)
    assert made.dtype == torch.float32


@pytest.fixture
def model():
    return make("llama", num_hidden_layers=4)


def test_a_third_of_the_blocks_is_computed_rounded_up_and_no_more(model):
    assert default_layer(model) == 2
    ran = []
    for n, block in enumerate(decoder_blocks(model)[1]):
        block.register_forward_hook(lambda *_, n=n: ran.append(n))
    text_features(model, TEXTS, opening=1)
    assert set(ran) == {0, 1}
    torch.testing.assert_close(text_features(model, TEXTS, opening=1), text_features(model, TEXTS, opening=1, layer=2))


def test_a_text_is_read_up_to_its_256th_token_and_an_empty_one_is_its_opening_token(model):
    long = tuple(range(5, 105)) * 3
    whole, cut, empty = text_features(model, [long, long[:LONGEST], ()], opening=1)
    assert torch.equal(whole, cut)
    assert empty.isfinite().all()
    assert empty.norm() > 0


def test_it_tells_how_many_texts_are_done(model):
    seen = []
    text_features(model, TEXTS, opening=1, on_rows=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_the_template_is_what_all_prompts_begin_and_end_with():
    prompts = [(1, 2, 7, 8, 9), (1, 2, 5, 9), (1, 2, 6, 6, 8, 9)]
    assert template_of(prompts) == ((1, 2), (9,))
    assert [own_tokens(prompt, template_of(prompts)) for prompt in prompts] == [(7, 8), (5,), (6, 6, 8)]
    assert template_of([(1, 2, 3)]) == ((), ())
    assert template_of([(1, 2, 3), (1, 2, 3)]) == ((1, 2, 3), ())


def test_a_prompt_that_was_cut_at_its_beginning_loses_its_end_alone_and_an_empty_one_stays_whole():
    template = ((1, 2), (9,))
    assert own_tokens((4, 5, 9), template) == (4, 5)
    assert own_tokens((1, 2, 9), template) == (1, 2, 9)
    assert own_tokens((1, 2, 3), ((1, 2), ())) == (3,)


def test_rows_have_the_features_of_their_own_text_in_whatever_template_and_their_labels(model):
    def row(ids, prompt, label, cut=0):
        return Encoded(tuple(ids), tuple(t >= prompt for t in range(len(ids))), cut, prompt, label)

    rows = [row((50, 51, *text, 60, 61, n), 4 + len(text), f"label {n}") for n, text in enumerate(TEXTS)]
    rows.append(row((12, 13, 60, 61, 9), 4, None, cut=3))
    features, labels = Tokens(0, opening=1).features(model, rows, None)
    torch.testing.assert_close(features, text_features(model, [*TEXTS, (12, 13)], opening=1))
    assert labels == ["label 0", "label 1", "label 2", None]


def test_the_answer_is_no_part_of_the_text_even_where_all_tokens_are_trained(model):
    whole = [
        Encoded((50, *text, 60, 9 + n), (True,) * (len(text) + 3), 0, len(text) + 2) for n, text in enumerate(TEXTS)
    ]
    features, _ = Tokens(0, opening=1).features(model, whole, None)
    torch.testing.assert_close(features, text_features(model, TEXTS, opening=1))


def test_a_row_without_a_prompt_is_read_whole(model):
    rows = [Encoded(text, (True,) * len(text), 0, 0) for text in TEXTS]
    features, _ = Tokens(0, opening=1).features(model, rows, None)
    torch.testing.assert_close(features, text_features(model, TEXTS, opening=1))
