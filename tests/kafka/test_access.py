"""Who may do what: the declaration beside the table of topics, and what is printed for a broker."""

import json
import shlex
import subprocess
import sys

import pytest

from common.errors import BadInput
from common.wire import access, topics
from common.wire.access import Acl, Kind, Operation, Principals, Resource, Role

INDICES = {Role.API: (0, 1), Role.SIGNER: (1, 2, 3), Role.AUDITOR: (0,), Role.OPERATOR: (0,)}


def may(role: Role, index: int, operation: Operation, topic: str) -> bool:
    rules = access.rules(role, index, "User:x", "")
    return any(rule.operation == operation.value and rule.resource.covers(Kind.TOPIC, topic) for rule in rules)


@pytest.mark.parametrize("spec", topics.all_topics("", 2, 3), ids=lambda spec: spec.name)
def test_the_declaration_says_what_the_table_of_topics_says(spec: topics.TopicSpec) -> None:
    writes = {role for role in Role for index in INDICES[role] if may(role, index, Operation.WRITE, spec.name)}
    assert writes == {
        *((Role.API,) if "API pods" in spec.writers else ()),
        *((Role.SIGNER,) if "signers" in spec.writers else ()),
    }
    reads = {role for role in Role for index in INDICES[role] if may(role, index, Operation.READ, spec.name)}
    everybody = spec.readers == "everybody"
    assert reads == {
        *((Role.API,) if everybody or "API pod" in spec.readers else ()),
        *((Role.SIGNER,) if everybody or "signers" in spec.readers or "seat" in spec.readers else ()),
        *((Role.AUDITOR,) if everybody or "auditors" in spec.readers else ()),
        *((Role.OPERATOR,) if spec.readers == "a person" else ()),
    }


def test_nobody_reads_what_another_pod_is_answered_or_another_seat_is_sent() -> None:
    for n in range(3):
        assert [may(Role.API, n, Operation.READ, f"signer.v1.resp{other}") for other in range(12)] == [
            other == n for other in range(12)
        ]
    for m in (1, 2, 11):
        assert [may(Role.SIGNER, m, Operation.READ, f"signer.v1.peer{other}") for other in range(1, 20)] == [
            other == m for other in range(1, 20)
        ]


def test_rules_are_given_to_names_and_all_of_them_lie_under_the_prefix() -> None:
    names = Principals("User:CN=pod-{n},O=us", "User:CN=seat {m}", None, "User:root")
    rules = access.all_rules("demo-1.", 2, 3, names)
    assert {rule.principal for rule in rules} == {
        *("User:CN=pod-0,O=us", "User:CN=pod-1,O=us", "User:CN=seat 1", "User:CN=seat 2", "User:CN=seat 3"),
        "User:root",
    }
    assert all(rule.resource.name.startswith("demo-1.signer") for rule in rules)
    assert not any(rule.deny for rule in rules)


@pytest.mark.parametrize(
    ("api", "signer", "words"),
    [
        ("User:api", "User:signer-{m}", "--principal-api has to contain {n}"),
        ("User:a{n}", "User:signer", "--principal-signer has to contain {m}"),
        ("a-{n}", "User:signer-{m}", "TYPE:NAME"),
        ("User:a{n}\n", "User:signer-{m}", "TYPE:NAME"),
        ("User:x{n}", "User:x{m}", "one name"),
    ],
)
def test_principals_that_would_share_a_name_are_refused(api: str, signer: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        Principals(api, signer).all(3, 3)
    assert words in refused.value.detail


def parsed(line: str) -> set[Acl]:
    """What a command line of kafka-acls.sh asks for, read as a shell and that tool would."""
    words = iter(shlex.split(line))
    names: list[tuple[Kind, str]] = []
    options: dict[str, str] = {}
    assert next(words) == "kafka-acls.sh"
    for word in words:
        if word in {"--topic", "--group"}:
            names.append((Kind(word[2:]), next(words)))
        elif word not in {"--add", "--force"}:
            assert word not in options
            options[word] = next(words)
    prefixed = options["--resource-pattern-type"] == "prefixed"
    principal, operation = options["--allow-principal"], options["--operation"]
    return {Acl(principal, Resource(kind, name, prefixed), operation) for kind, name in names}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "rest_api.cli", "topics", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)


def test_what_is_printed_for_the_shell_and_for_machines_is_the_declaration() -> None:
    names = ("--principal-signer", "User:CN=signer {m},O='us' $HOME", "--topic-prefix", "p.")
    wanted = set(access.all_rules("p.", 1, 2, Principals(signer="User:CN=signer {m},O='us' $HOME")))
    lines = run("--acls", "--apis", "1", "--signers", "2", *names)
    assert lines.returncode == 0, lines.stderr
    assert set().union(*map(parsed, lines.stdout.splitlines())) == wanted
    rows = json.loads(run("--acls", "--apis", "1", "--signers", "2", *names, "--json").stdout)
    assert {
        Acl(
            row["principal"],
            Resource(Kind(row["resource_type"]), row["name"], row["pattern_type"] == "prefixed"),
            row["operation"],
            row["host"],
            row["permission"] == "Deny",
        )
        for row in rows
    } == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--kafka"),
        (("--acls", "--apply"), "--kafka"),
        (("--kafka", "h:1", "--apply"), "goes with --acls"),
        (("--kafka", "h:1", "--acls", "--create"), "run it twice"),
        (("--acls", "--principal-api", "User:api"), "{n}"),
    ],
)
def test_a_slip_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_reaches_our_names_and_is_not_wanted_is_superfluous_and_what_does_not_is_not_ours() -> None:
    wanted = access.all_rules("", 1, 2, Principals())
    names = access.names_of("", 1, 2)

    def rule(kind: Kind, name: str, *, prefixed: bool = False, deny: bool = False) -> Acl:
        return Acl("User:x", Resource(kind, name, prefixed), "Read", deny=deny)

    ours = {
        rule(Kind.TOPIC, "*"),
        rule(Kind.TOPIC, "sig", prefixed=True),
        rule(Kind.TOPIC, "signer.v1.resp77"),
        rule(Kind.GROUP, "signer"),
        rule(Kind.TOPIC, "signer.v1", deny=True),
        Acl("User:signer-1", Resource(Kind.TOPIC, "signer.v1"), "Write"),
    }
    others = {rule(Kind.TOPIC, "orders"), rule(Kind.TOPIC, "signer"), rule(Kind.GROUP, "signer-of-others")}
    found = access.compare(wanted, {*wanted[1:], *ours, *others}, "", names)
    assert set(found.superfluous) == ours
    assert found.missing == wanted[:1]
