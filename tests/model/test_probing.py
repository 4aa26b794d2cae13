"""How a model is tried out."""

import architectures
from perdure.model.probing import measure, plain


def test_no_row_that_is_tried_looks_padded_to_transformers(monkeypatch):
    model = architectures.make("gpt2")
    asked = []
    monkeypatch.setattr(
        model.transformer, "warn_if_padding_and_no_attention_mask", lambda ids, mask: asked.append((ids, mask))
    )
    plain(model)
    measure(model)
    bare = [ids for ids, mask in asked if mask is None]
    assert bare
    assert not any(0 in ids[:, [0, -1]] for ids in bare)  # 0 is this model's padding
