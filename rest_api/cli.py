"""``signer-flow``: the command line of a person or a script.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a signature that does not
verify, or some row failed; 2 usage; 3 refused by the service (4xx); 4 unavailable, or the deadline passed; 130
interrupted.
"""

import sys

import typer
from stamina.instrumentation import set_on_retry_hooks
from typer.exceptions import TyperException

from common.errors import BadInput, Unavailable
from rest_api import client
from rest_api.commands import batch, cluster, signing, system
from rest_api.commands.options import DONE, EXIT_CODES, INTERRUPTED, INVALID, REFUSED, UNAVAILABLE, USAGE, fail

app = typer.Typer(
    name="signer-flow",
    help="Threshold signing over Kafka: plain Ed25519 signatures from a key that no machine holds.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    signing.sign,
    signing.verify,
    batch.batch,
    cluster.status,
    cluster.refresh,
    system.token,
    system.topics,
):
    app.command(epilog=EXIT_CODES)(_command)
app.command(epilog="Stops on Ctrl-C within 5 s and leaves nothing behind. " + EXIT_CODES)(system.demo)


def main() -> None:
    """Entry point: run a command, and turn every expected error into one line and its exit code."""
    # Of its own accord stamina tells of each retry on standard output, in the middle of the results.
    set_on_retry_hooks(())
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if not (line := error.format_message()):  # no command given: the help has been printed
            sys.exit(USAGE)
        fail(USAGE, f"{line} (see --help)")
    except (typer.Abort, KeyboardInterrupt):
        fail(INTERRUPTED, "interrupted")
    except client.WrongAnswer as error:
        fail(INVALID, str(error))
    except client.Refused as error:
        fail(REFUSED, str(error))
    except client.ClientError as error:
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
