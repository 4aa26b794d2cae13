"""The scale of the heat map: one hue, ordered lightness, text that can be read on every step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.report.colour import LEVELS, background, ink, level, luminance, scale_css


@pytest.mark.parametrize("dark", [False, True])
@given(share=st.floats(0, 1))
def test_text_contrast_is_at_least_four_and_a_half_everywhere_on_the_scale(share, dark):
    light = luminance(background(share, dark))
    text = 1.0 if ink(background(share, dark)) == "#fff" else 0.0
    assert (max(light, text) + 0.05) / (min(light, text) + 0.05) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_a_higher_score_stands_out_more_from_the_page(dark):
    steps = [luminance(background(step / LEVELS, dark)) for step in range(LEVELS + 1)]
    assert steps == sorted(steps, reverse=not dark)
    assert len(set(steps)) == LEVELS + 1


@given(st.floats(-10, 10))
def test_scores_outside_the_range_are_clamped(score):
    assert level(score) == round(LEVELS * min(1, max(0, score)))


def test_every_step_has_its_rule():
    assert all(f".v{step}{{" in scale_css(dark=False) for step in range(LEVELS + 1))
