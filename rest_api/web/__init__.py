"""Templates and static files of the pages: values are escaped, and no script nor anything foreign may load."""

import json
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_KINDS: Final = {".css": "text/css"}


def _read_static() -> dict[str, tuple[str, bytes]]:
    folder = files(__name__) / "static"
    return {
        entry.name: (kind, entry.read_bytes())
        for entry in folder.iterdir()
        for suffix, kind in _KINDS.items()
        if entry.name.endswith(suffix)
    }


STATIC: Final = _read_static()
"""File name to media type and content."""

_environment = Environment(
    loader=PackageLoader("rest_api", "web/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["compact"] = lambda value: json.dumps(value, separators=(", ", ": "))


def render(template: str, **values: Any) -> str:
    """Return the page; a name that the template uses and nobody gave is an error."""
    return _environment.get_template(template).render(**values)
