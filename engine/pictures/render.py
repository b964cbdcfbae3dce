"""From a picture to bytes: PNG, SVG, or a page that needs nothing else."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from engine.errors import ConfigError, TaskError
from engine.pictures.picture import Picture
from engine.pictures.theme import ON_DARK, PAPER

FORMS = ("png", "svg", "html")
"""What a picture can become."""

_MOST_PIXELS = 60e6  # of a PNG; larger ones are drawn at a smaller scale
_MANY_PIXELS = 4e6  # where a scale is chosen, a large picture gets a smaller one
_USUAL_SCALE, _LEAST_SCALE = 2.0, 1.25
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"')


def render(picture: Picture, form: str, *, scale: float | None = None) -> bytes:
    """Draw a picture.

    Args:
        picture: what to draw.
        form: one of `FORMS`.
        scale: pixels of a PNG for each point; None for 2, and less where that would be many.

    Raises:
        ConfigError: an unknown form.
        TaskError: it cannot be drawn.
    """
    if form == "svg":
        return to_svg(picture).encode()
    if form == "png":
        return _png(to_svg(picture), scale)
    if form == "html":
        return _page(picture).encode()
    raise ConfigError(f"a picture is one of {', '.join(FORMS)}, not {form!r}")


def to_svg(picture: Picture) -> str:
    """Draw a picture as SVG; errors as for `render`."""
    return str(_draw("vegalite_to_svg", json.dumps(picture.spec), allowed_base_urls=[]))


def javascript() -> str:
    """Everything that draws pictures in a browser: Vega, Vega-Lite and vega-embed, as a script of one global.

    Raises:
        TaskError: as for `render`.
    """
    return str(_draw("javascript_bundle", "window.vegaEmbed = vegaEmbed;"))


def _draw(function: str, *words: Any, **options: Any) -> Any:
    import vl_convert

    try:
        return getattr(vl_convert, function)(*words, **options)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise TaskError(f"the picture could not be drawn: {reason}") from error


def _png(svg: str, scale: float | None) -> bytes:
    width, height = size_of(svg)
    area = max(width * height, 1)
    if scale is None:
        scale = min(_USUAL_SCALE, max((_MANY_PIXELS / area) ** 0.5, _LEAST_SCALE))
    return bytes(_draw("svg_to_png", svg, scale=min(scale, (_MOST_PIXELS / area) ** 0.5)))


def size_of(svg: str) -> tuple[float, float]:
    """Width and height of an SVG, in points."""
    found = _SIZE.search(svg)
    if found is None:
        raise TaskError("the picture could not be drawn: it has no size")
    return float(found[1]), float(found[2])


def script_text(text: str) -> str:
    """JSON that may stand inside of a script of a page: nothing in it ends the script."""
    for sign, word in (("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(sign, word)
    return text


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; padding: 1rem; overflow-x: auto; background: {paper}; }}
@media (prefers-color-scheme: dark) {{ body {{ background: {night}; }} }}
</style>
</head>
<body>
<div id="picture"></div>
<script type="module">{javascript}
const {{datasets, ...rest}} = {spec};
let drawn = JSON.stringify(rest);
if (matchMedia('(prefers-color-scheme: dark)').matches)
  for (const [light, dark] of Object.entries({dark})) drawn = drawn.replaceAll(light, dark);
const spec = {{...JSON.parse(drawn), datasets}};
vegaEmbed('#picture', spec, {{renderer: 'svg', actions: false}});
</script>
</body>
</html>
"""


def _page(picture: Picture) -> str:
    return _PAGE.format(
        title=html.escape(picture.title),
        paper=PAPER,
        night=ON_DARK[PAPER],
        javascript=javascript(),
        spec=script_text(json.dumps(picture.spec)),
        dark=json.dumps(ON_DARK),
    )
