"""One sequential hue for scores, and the text colour that stays legible on it."""

import math

LEVELS = 40  # steps of 2.5 points: finer than the eye tells apart, few enough for a short style sheet
HUE = math.radians(252)


def level(score: float) -> int:
    """Return the step of the scale, 0 to LEVELS, for a score; scores outside [0, 1] are clamped."""
    return round(LEVELS * min(1.0, max(0.0, score)))


def background(share: float, dark: bool) -> tuple[float, float, float]:
    """Return the linear sRGB colour at `share` in [0, 1] of the scale.

    Lightness is linear in the score (OKLCh), away from the page: high is dark on a light page, bright on a dark one.
    """
    lightness, chroma = (
        (0.25 + 0.62 * share, 0.022 + 0.073 * share) if dark else (0.965 - 0.575 * share, 0.012 + 0.118 * share)
    )
    return _linear_rgb(lightness, chroma * math.cos(HUE), chroma * math.sin(HUE))


def luminance(colour: tuple[float, float, float]) -> float:
    """Return the relative luminance (WCAG 2) of a linear sRGB colour."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def ink(colour: tuple[float, float, float]) -> str:
    """Return black or white, whichever contrasts more; one of the two always reaches 4.58 to 1."""
    light = luminance(colour)
    return "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"


def scale_css(dark: bool) -> str:
    """Return the rules `.v0` ... `.v40`: background and text colour of each step."""
    colours = [background(step / LEVELS, dark) for step in range(LEVELS + 1)]
    return "".join(f".v{step}{{background:{_hex(c)};color:{ink(c)}}}" for step, c in enumerate(colours))


def _linear_rgb(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """OKLab to linear sRGB, clipped to the gamut (Ottosson 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    small = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * small
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * small
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * small
    return _clamp(red), _clamp(green), _clamp(blue)


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def _hex(colour: tuple[float, float, float]) -> str:
    bent = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in colour)
    return "#" + "".join(f"{round(255 * c):02x}" for c in bent)
