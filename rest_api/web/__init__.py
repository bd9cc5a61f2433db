"""Templates and static files of the pages: values are escaped, scripts are our own files, nothing foreign may load."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of a page without scripts."""

CSP_SCRIPTED: Final = (
    CSP + "; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Of /sign. No script may make markup out of text: with Trusted Types and no policy for them, nothing can."""

_KINDS: Final = {".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class Static:
    """A file that the package ships; ``etag`` changes with its bytes."""

    kind: str
    content: bytes
    etag: str


def _static(kind: str, content: bytes) -> Static:
    return Static(kind, content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _read_static() -> dict[str, Static]:
    folder = files(__name__) / "static"
    return {
        entry.name: _static(kind, entry.read_bytes())
        for entry in folder.iterdir()
        for suffix, kind in _KINDS.items()
        if entry.name.endswith(suffix)
    }


STATIC: Final = _read_static()
"""By file name."""

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
