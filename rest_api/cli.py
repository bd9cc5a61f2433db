"""``signer-flow``: the command line of a person or a script.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a signature that does not
verify, or some row failed; 2 usage; 3 refused by the service (4xx); 4 unavailable, or the deadline passed; 130
interrupted.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer
from typer.exceptions import TyperException

from common.errors import BadInput, Unavailable
from rest_api import client_wire
from rest_api.commands.options import DONE, EXIT_CODES, INTERRUPTED, INVALID, REFUSED, UNAVAILABLE, USAGE, fail

COMMANDS: Final = {
    "sign": "signing",
    "verify": "signing",
    "batch": "batch",
    "status": "cluster",
    "refresh": "cluster",
    "token": "token",
    "topics": "topics",
    "demo": "demo",
    "prove": "install",
    "upgrade-check": "install",
    "hand-on": "hand_on",
}
"""Command to its module in ``rest_api.commands``, where the function has the command's name, with '_' for '-'; in the
order of --help."""
_EPILOGS: Final = {"demo": "Stops on Ctrl-C within 5 s and leaves nothing behind. " + EXIT_CODES}


def program(words: Sequence[str] = ()) -> typer.Typer:
    """Return the command line for ``words``, the arguments of this run.

    It has the one command that they begin with, or all where they name none (help, completion, a slip): most of a
    short command's time would otherwise go into importing what only the others need.
    """
    app = typer.Typer(
        name="signer-flow",
        help="Threshold signing over Kafka: plain Ed25519 signatures from a key that no machine holds.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # With a callback the name of the command stays part of the line, also where there is only one.
    app.callback()(lambda: None)
    named = [word for word in words[:1] if word in COMMANDS]
    for name in named or COMMANDS:
        command = getattr(import_module(f"rest_api.commands.{COMMANDS[name]}"), name.replace("-", "_"))
        app.command(epilog=_EPILOGS.get(name, EXIT_CODES))(command)
    return app


def main() -> None:
    """Entry point: run a command, and turn every expected error into one line and its exit code."""
    try:
        code = program(sys.argv[1:])(standalone_mode=False)
    except TyperException as error:
        if not (line := error.format_message()):  # no command given: the help has been printed
            sys.exit(USAGE)
        fail(USAGE, f"{line} (see --help)")
    except (typer.Abort, KeyboardInterrupt):
        fail(INTERRUPTED, "interrupted")
    except client_wire.WrongAnswer as error:
        fail(INVALID, str(error))
    except client_wire.Refused as error:
        fail(REFUSED, str(error))
    except client_wire.ClientError as error:
        fail(UNAVAILABLE, str(error))
    except BadInput as error:
        fail(USAGE, error.detail)
    except Unavailable as error:
        fail(UNAVAILABLE, error.detail)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(DONE)
    sys.exit(code if isinstance(code, int) else DONE)


if __name__ == "__main__":
    main()
