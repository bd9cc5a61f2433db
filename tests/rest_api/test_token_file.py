"""The token file is read strictly, and ``signer-flow token`` writes what every pod reads."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import BadInput, Unavailable
from common.ids import KeyId
from rest_api import token_file
from rest_api.callers import Callers, UnknownCaller
from rest_api.token_command import make_token
from rest_api.token_file import Rate, Token, parse, read_token_file

SHA = "9f" * 32
GOOD = f'[[token]]\nname = "a"\nsha256 = "{SHA}"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def test_an_entry_says_name_hash_keys_and_rate(path: Path) -> None:
    made = Token("billing", bytes.fromhex(SHA), frozenset({"default", "other"}), Rate(6000, "minute"))  # type: ignore[arg-type]
    assert parse(token_file.entry(made).encode(), path) == (made,)
    assert parse(GOOD.encode(), path) == (Token("a", bytes.fromhex(SHA)),)
    assert parse(b"# nobody may call\n", path) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + GOOD, "token 2: has the name of token 1"),
        (GOOD + GOOD.replace('"a"', '"A"'), "token 2: has the name of token 1"),
        (GOOD + GOOD.replace('"a"', '"b"'), "token 2: has the sha256 of token 1"),
        (GOOD.replace(SHA, SHA.upper()), "sha256 is not 64 lower-case hex"),
        (GOOD.replace(SHA, "9f"), "sha256 is not 64"),
        (GOOD.replace(f'"{SHA}"', "5"), "sha256 is not a string"),
        ('[[token]]\nname = "a"\n', "sha256 is missing"),
        (GOOD.replace('"a"', '""'), "a token's name has"),
        (GOOD.replace('"a"', '"a b"'), "a token's name has"),
        (GOOD.replace('"a"', '"Anonymous"'), "stands for callers without a token"),
        (GOOD + "keys = []\n", "keys is not a list of key ids"),
        (GOOD + "keys = 'default'\n", "keys is not a list of key ids"),
        (GOOD + "keys = ['Not a key']\n", "token 1"),
        (GOOD + "rate = '100'\n", "a rate is written like"),
        (GOOD + "rate = '0/second'\n", "a rate is written like"),
        (GOOD + "rate = '1/fortnight'\n", "a rate is written like"),
        (GOOD + "rate = 100\n", "rate is not a string"),
        (GOOD + "colour = 'red'\n", "'colour' is unknown"),
        ("colour = 'red'\n" + GOOD, "'colour' is unknown"),
        ("token = 5\n", "begins with a line [[token]]"),
        ("token = [5]\n", "begins with a line [[token]]"),
        ("[[token]\nname = 'hunter2'\n", "not TOML at line 1"),
        ("x = " + "[" * 5000, "token"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_says_where(path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text.encode(), path)
    assert said in caught.value.detail
    assert str(path) in caught.value.detail
    assert "\n" not in caught.value.detail
    assert "hunter2" not in caught.value.detail


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    with pytest.raises(BadInput, match="not UTF-8"):
        parse(b"\xff", path)


def test_a_file_that_is_missing_or_open_to_others_is_refused(path: Path) -> None:
    with pytest.raises(BadInput, match="no such file; `signer-flow token` makes one"):
        read_token_file(path)
    path.write_text(GOOD)
    path.chmod(0o644)
    with pytest.raises(BadInput, match="mode 0644 lets others read"):
        Callers(path)


def test_a_made_token_opens_the_door_and_is_kept_by_nobody(path: Path) -> None:
    secret, made = make_token(path, "billing", ["default"], "100/second")
    other, _ = make_token(path, "reports", None, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret != other
    assert secret not in path.read_text()
    assert made in read_token_file(path)
    callers = Callers(path)
    caller = callers.identify(f"Bearer {secret}", "192.0.2.1")
    assert caller.principal == "billing"
    assert caller.may_use(KeyId("default"))
    assert not caller.may_use(KeyId("other"))
    assert caller.rate == Rate(100, "second")
    with pytest.raises(UnknownCaller):
        callers.identify(f"Bearer {secret}x", "192.0.2.1")
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]


def test_what_a_person_wrote_into_the_file_stays(path: Path) -> None:
    path.write_text("# mine\n" + GOOD.rstrip())
    path.chmod(0o600)
    make_token(path, "b", None, None)
    assert path.read_text().startswith("# mine\n" + GOOD)
    assert [token.name for token in read_token_file(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "keys", "rate"),
    [
        ("a b", None, None),
        ("anonymous", None, None),
        ("b", ["?"], None),
        ("b", [], None),
        ("b", None, "1"),
        ("A", None, None),
    ],
)
def test_what_the_pods_would_refuse_is_not_written(
    path: Path, name: str, keys: list[str] | None, rate: str | None
) -> None:
    path.write_text(GOOD)
    path.chmod(0o600)
    with pytest.raises(BadInput):
        make_token(path, name, keys, rate)
    assert path.read_text() == GOOD


def test_two_who_append_at_one_time_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: make_token(path, f"t{n}", None, None), range(24)))
    assert len(read_token_file(path)) == 24


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such file"):
        make_token(tmp_path / "none" / "tokens.toml", "a", None, None)


def test_a_wrong_token_file_stops_the_start_with_one_line(path: Path) -> None:
    path.write_text(GOOD + GOOD)
    path.chmod(0o600)
    from tests.rest_api.world import Trust

    Trust("").write(path.parent / "keys")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")}
    env = {
        "SIGNER_REST_API_INDEX": "0",
        "SIGNER_REST_API_SECRETS_DIR": str(path.parent / "keys"),
        "SIGNER_REST_API_TOKENS_FILE": str(path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "rest_api"], env=kept | env, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr == f"rest_api: {path}: token 2: has the name of token 1, 'a'\n"
