"""librdkafka's options for SASL and TLS, out of a file: passwords are among them, and an environment can be read by
whoever can list the process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.errors import BadInput
from common.private_file import read_private_file

MAX_BYTES: Final = 64 * 1024


def read_security_file(path: Path | None, variable: str) -> Mapping[str, str]:
    """Return the ``name=value`` lines of a private file; empty lines and those that begin with ``#`` are skipped.

    Args:
        path: The file, mode 0600 or stricter; None: no options.
        variable: The setting that named it; stands before what is wrong.

    Raises:
        BadInput: code ``settings``: it cannot be read, is open to others, or a line is no pair or says a name again.
            Never with the line itself.
    """
    if path is None:
        return {}
    try:
        text = read_private_file(path, MAX_BYTES, "settings").decode()
    except UnicodeDecodeError:
        raise BadInput("settings", f"{variable}: {path} is not UTF-8 text") from None
    except BadInput as error:
        raise BadInput(error.code, f"{variable}: {error.detail}") from None
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, found, value = line.partition("=")
        if not found:
            raise BadInput("settings", f"{variable}: line {number} of {path} is not name=value")
        if name.strip() in options:
            raise BadInput("settings", f"{variable}: line {number} of {path} sets {name.strip()} again")
        options[name.strip()] = value.strip()
    return options
