"""The other commands of ``signer-flow``: what they print, where, and with which exit code they end."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common import ed25519
from rest_api.cli import program
from rest_api.client_wire import b64
from tests.cli.running import cli, environment
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio

NO_RESULT = ("demo", "prove", "upgrade-check", "hand-on")
"""They end well or not, and have nothing to hand on."""
COMMANDS = ("sign", "verify", "batch", "status", "refresh", "token", "topics", *NO_RESULT)


async def test_sign_prints_the_signature_alone_and_verify_takes_it(pod: Pod, shared_world: World) -> None:
    url = {"SIGNER_FLOW_URL": pod.url}
    signed = await cli("sign", "-", stdin=b"we agree", env=url)
    assert (signed.code, signed.err) == (0, "")
    signature = signed.out.decode().strip()
    assert ed25519.verify(shared_world.trust.group_pub, b"we agree", base64.b64decode(signature))
    good = await cli("verify", "-", "--signature", signature, "--json", stdin=b"we agree", env=url)
    assert (good.code, json.loads(good.out)["valid"]) == (0, True)
    bad = await cli("verify", "-", "--signature", signature, "--json", stdin=b"we agree not", env=url)
    assert (bad.code, json.loads(bad.out)["valid"]) == (1, False)
    told = await cli("verify", "-", "--signature", signature, stdin=b"we agree not", env=url)
    assert (told.code, told.out) == (1, b"")
    assert "NOT valid" in told.line


async def test_sign_json_is_the_object_of_the_api(pod: Pod) -> None:
    done = await cli("sign", "-", "--json", "--url", pod.url, stdin=b"a")
    found = json.loads(done.out)
    assert (found["key_id"], found["algorithm"], found["signers"]) == ("default", "Ed25519", [1, 2])


async def test_a_key_that_is_not_the_pinned_one_is_an_error_and_no_output(pod: Pod) -> None:
    other = base64.b64encode(ed25519.generate_keypair(bytes(32))[1]).decode()
    for command in (("sign", "-"), ("batch", "-")):
        stdin = b"a" if command[0] == "sign" else b"reference,text\na,a\n"
        done = await cli(*command, "--public-key", other, "--url", pod.url, stdin=stdin)
        assert (done.code, done.out) == (1, b"")
        assert "another key" in done.line


async def test_status_shows_replicas_epochs_margin_and_queues(pod: Pod) -> None:
    done = await cli("status", "--url", pod.url)
    text = done.out.decode()
    for word in ("Keys", "default", "+1", "Replicas", "ready", "default 1", "queue", "skew", "API pods"):
        assert word in text
    # In a terminal of 80 characters each replica has one line, and no heading is cut.
    narrow = (await cli("status", "--url", pod.url, env={"COLUMNS": "80"})).out.decode()
    assert "partitions" in narrow
    assert sum("ready" in line for line in narrow.splitlines()) == 3
    assert "…" not in narrow
    found = json.loads((await cli("status", "--url", pod.url, "--json")).out)
    assert [replica["index"] for replica in found["replicas"]] == [1, 2, 3]
    assert {key["key_id"] for key in found["keys"]} == {"default", "late"}


async def test_status_ends_with_4_when_a_key_cannot_sign(pod: Pod) -> None:
    # The key `late` stands in the roster and was never made.
    done = await cli("status", "--url", pod.url, "--json")
    assert done.code == 4
    assert "cannot sign now: late" in done.line


async def test_a_token_is_printed_once_and_opens_the_door(own_world: World, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    made = await cli("token", "billing", "--keys", "default", "--rate", "100/second", "--file", str(path))
    assert made.code == 0
    token = made.out.decode().strip()
    assert token not in path.read_text()
    assert token not in made.err
    again = await cli("token", "billing", "--file", str(path))
    assert (again.code, again.out) == (2, b"")
    assert "has a token 'billing'" in again.line
    other = json.loads((await cli("token", "reports", "--file", str(path), "--json")).out)
    assert (other["name"], other["keys"], other["rate"]) == ("reports", None, None)
    async with running_pod(own_world.settings(tokens_file=path)) as pod:
        for secret, code in ((token, 0), (other["token"], 0), ("sft_wrong", 3)):
            done = await cli("sign", "-", "--url", pod.url, stdin=b"a", env={"SIGNER_FLOW_TOKEN": secret})
            assert done.code == code, done.err
            assert secret not in done.err
        assert sorted(item.principal for _, item in own_world.committee.asked_items()) == ["billing", "reports"]
        # What is open stays open.
        assert (await cli("status", "--url", pod.url)).code == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sign", "-", "--url", "ftp://a"), "--url"),
        (("sign", "-", "--token", "a\nb"), "--token"),
        (("sign", "-", "--timeout-ms", "99"), "--timeout-ms"),
        (("batch", "-", "--resume", "x.csv", "--json"), "--resume"),
        (("token", "a b", "--file", "t"), "token's name"),
        (("token", "a", "--file", "t", "--rate", "fast"), "a rate is written like"),
        (("token", "a", "--file", "t", "--keys", ","), "no key is named"),
        (("nonsense",), "nonsense"),
        (("demo", "--refresh-interval", "soon"), "write 20s, 5m or 24h"),
        (("demo", "--refresh-interval", "1s"), "from 3s to 7d, not 1s"),
    ],
)
async def test_wrong_usage_is_one_line_and_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = await cli(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert said in done.line


async def test_a_token_in_the_environment_is_never_shown_as_a_default() -> None:
    done = await cli("sign", "--help", env={"SIGNER_FLOW_TOKEN": "sft_hidden"})
    assert b"sft_hidden" not in done.out
    assert b"SIGNER_FLOW_TOKEN" in done.out
    assert b"can read" in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_tells_its_exit_codes(command: str) -> None:
    done = CliRunner().invoke(program([command]), [command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for code in ("0 done", "2 usage", "3 refused", "4 unavailable", "130 interrupted"):
        assert code in " ".join(done.output.split())
    if command not in NO_RESULT:
        assert "--json" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "unwanted"),
    [
        (
            ("verify", "-", "--public-key", b64(bytes(32)), "--signature", "AA=="),
            1,
            {"httpx", "stamina", "rich.progress"},
        ),
        (("sign", "-", "--url", "http://127.0.0.1:1", "--timeout-ms", "nine"), 2, {"rest_api.demo", "uvicorn"}),
    ],
)
def test_a_command_loads_nothing_that_only_others_need(
    arguments: tuple[str, ...], code: int, unwanted: set[str]
) -> None:
    ask = "import atexit, sys, rest_api.cli as c; atexit.register(lambda: print(*sys.modules)); c.main()"
    done = subprocess.run(
        [sys.executable, "-c", ask, *arguments], input="", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done
    loaded = set(done.stdout.split())
    assert "rest_api.commands.signing" in loaded
    assert loaded & (unwanted | {"confluent_kafka", "fastapi", "fastavro", "structlog"}) == set()


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "signer-flow"
    for words, expected in (("signer-flow ", set(COMMANDS)), ("signer-flow batch --r", {"--resume"})):
        count = str(len(words.split()) - (not words.endswith(" ")))
        asked = {"_SIGNER_FLOW_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        done = subprocess.run(
            [program], env=environment(asked), capture_output=True, text=True, check=False, timeout=30
        )
        assert expected <= set(done.stdout.split()), done
    home = environment(
        {"HOME": str(tmp_path), "SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    done = subprocess.run(
        [program, "--install-completion", "bash"], env=home, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done
    (installed,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".bashrc"]
    assert "_SIGNER_FLOW_COMPLETE=complete_bash" in installed.read_text()
