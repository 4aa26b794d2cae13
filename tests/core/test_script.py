"""Words of scripts with spaces and without."""

import re

from hypothesis import given
from hypothesis import strategies as st

from perdure.core.script import count_words, has_unspaced, narrowed, words


def test_a_letter_of_a_script_without_spaces_is_a_word():
    assert words("東京タワーは333mです。") == [*"東京タワーは", "333m", *"です"]
    assert words("ຂ້ອຍ မြန်မာ") == ["ຂ້", "ອ", "ຍ", "မြ", "န်", "မာ"]
    assert words("naïve e\u0301t\u0301e") == ["naïve", "e\u0301t\u0301e"]
    assert words("\u0301a .\u0301b") == ["a", "b"]  # a mark on nothing is no word


def test_words_between_spaces_are_counted_and_letters_where_there_are_none():
    assert count_words("  the bill is wrong ") == 4
    assert count_words("don't e-mail!") == 2
    assert count_words("账单错误") == 4
    assert count_words("my 账单 is wrong") == 5
    assert count_words("서울은 수도이다") == 2


def test_fullwidth_forms_are_their_ascii_ones_and_accents_are_composed():
    assert narrowed("ＡＢ１２，－\u3000！") == "AB12,- !"
    assert narrowed("e\u0301² ﬁ") == "é² ﬁ"  # no other letter is exchanged
    assert has_unspaced("größe 京")
    assert not has_unspaced("Größe, 서울")


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=30))
def test_in_a_script_with_spaces_words_are_what_they_were(text):
    assert words(text) == re.findall(r"\w+", text)
