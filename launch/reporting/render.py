"""Renders the jinja templates of pages, which extend templates/base.html."""

from pathlib import Path

from .charts import plotly_script

_TEMPLATES = Path(__file__).with_name("templates")


def rendered(template: str, **values: object) -> str:
    """The HTML text of `template`, a file in templates/. It needs no network, and no value becomes markup or script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here, for `phalanx status` has no use for it

    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = pages.get_template(template).render(script=plotly_script(), **values)
    return text.encode("utf-8", "replace").decode()  # names of files, and what JSON escapes, can hold half a character
