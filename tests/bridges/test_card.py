"""Model cards: the hub's own library reads back what was written."""

from huggingface_hub import ModelCard

from perdure.bridges.card import model_card


def test_the_metadata_and_the_text_are_read_back():
    card = model_card("# Title\n\n--- a line ---\n", base_model="a: #b/\u00e9", tags=["lora", "perdure"])
    found = ModelCard(card)
    assert found.data.to_dict() == {"base_model": "a: #b/\u00e9", "tags": ["lora", "perdure"]}
    assert found.text == "\n# Title\n\n--- a line ---\n"
    assert card.startswith("---\nbase_model: ")
