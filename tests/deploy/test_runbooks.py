"""Every command of the runbooks exists and names what the chart has; a runbook that is wrong is found out at night.

The commands are not run here: that takes a cluster, where tests/deploy/lifecycle.sh runs them as they stand. What can
be checked without one: options, names of objects, values of the chart, subcommands of our own programs, alerts, links.
"""

import re
import shlex
from functools import cache
from typing import Any

import pytest
import typer

from common.wire.topics import all_topics
from rest_api import problems
from rest_api.cli import program
from signer_service.__main__ import cli as signer_cli
from tests.deploy import runbook
from tests.deploy.chart import RELEASE, Object, objects, yaml
from tests.deploy.runbook import TEXT
from tests.deploy.tools import CHART, ROOT, run

PARTS = runbook.HEADINGS
COMMANDS = re.findall(r"^    (\S.*)$", TEXT, re.MULTILINE)
FIVE = ("committee.size=5", "committee.threshold=3")

KUBECTL: dict[str, set[str]] = {
    "get": {"-l", "-o", "--field-selector", "--ignore-not-found"},
    "describe": {"-l"},
    "logs": {"-l", "--tail", "--prefix"},
    "label": set(),
    "delete": {"--wait", "--timeout", "--cascade"},
    "wait": {"--for", "--timeout"},
    "rollout": {"--timeout"},
    "replace": {"-f"},
    "patch": {"--type", "-p"},
    "exec": set(),
    "create": {"--from-file", "--type", "--dry-run", "-o"},
    "port-forward": set(),
    "top": set(),
}
"""Verbs of kubectl that are used, with the options of each that are (https://kubernetes.io/docs/reference/kubectl/)."""
KINDS = {
    "pod": "Pod", "pods": "Pod", "pvc": "PersistentVolumeClaim", "secret": "Secret", "secrets": "Secret",
    "configmap": "ConfigMap", "configmaps": "ConfigMap", "service": "Service", "statefulset": "StatefulSet",
    "namespace": "Namespace", "events": "Event", "pv": "PersistentVolume",
    "storageclass": "StorageClass",
}  # fmt: skip


@cache
def there() -> frozenset[tuple[str, str]]:
    """(kind, name) of what there is once the chart is installed with five signers: its own, and what follows."""
    found = {("Namespace", RELEASE)}
    for thing in objects(FIVE):
        name = thing["metadata"]["name"]
        found.add((thing["kind"], name))
        if thing["kind"] == "StatefulSet":
            for ordinal in range(thing["spec"]["replicas"]):
                found.add(("Pod", f"{name}-{ordinal}"))
                for claim in thing["spec"].get("volumeClaimTemplates", []):
                    found.add(("PersistentVolumeClaim", f"{claim['metadata']['name']}-{name}-{ordinal}"))
        if thing["kind"] == "Role" and name.endswith("-provision"):
            for rule in thing["rules"]:
                kind = {"secrets": "Secret", "configmaps": "ConfigMap"}[rule["resources"][0]]
                found |= {(kind, each) for each in rule.get("resourceNames", [])}
    return frozenset(found)


def commands_of(line: str) -> list[list[str]]:
    """What a line runs, one after the other through pipes, without the files that it writes."""
    # What a later line uses is taken as such: `next=$(…)`.
    line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line).replace("$next", "7")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    written = False
    for word in lexer:
        if word == "|":
            found.append([])
        elif word == ">" or written:
            written = word == ">"
        else:
            found[-1].append(word)
    return found


def words_of(line: str) -> list[str]:
    """The first of them."""
    return commands_of(line)[0]


def of_program(name: str) -> list[list[str]]:
    return [words for line in COMMANDS for words in commands_of(line) if words[0] == name]


def check_ours(app: typer.Typer, arguments: list[str]) -> None:
    """Our own program takes these arguments: the parser's own word, without running anything."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    command = group.commands.get(name)
    assert command is not None, f"no command {name}"
    with command.make_context(name, list(rest)):
        pass


def check_kubectl(words: list[str]) -> None:
    words = list(words[1:])
    if words[0] == "-n":
        assert words[1] == RELEASE
        words = words[2:]
    verb, *rest = words
    assert verb in KUBECTL, verb
    if "--" in rest:
        at = rest.index("--")
        inner, rest = rest[at + 1 :], rest[:at]
        check_inside(inner)
    plain: list[str] = []
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            option = word.split("=")[0]
            assert option in KUBECTL[verb], f"kubectl {verb} {option}"
            skip = "=" not in word and option in {"-f", "-l", "-o", "-p", "--field-selector"}
        else:
            plain.append(word)
    for at, word in enumerate(rest):
        if word == "-l":
            check_selector(rest[at + 1])
    check_named(verb, plain)


def check_named(verb: str, plain: list[str]) -> None:
    """What is named is there."""
    if verb == "rollout":
        assert plain.pop(0) in {"status", "restart"}
    if verb == "create":
        kind = KINDS[plain[0]]
        assert (kind, plain[-1]) in there(), plain
        return
    if verb in {"exec", "logs"}:
        assert all(("Pod", each) in there() for each in plain), plain
        return
    if not plain:
        return
    first, *names = plain
    kind, slash, name = first.partition("/")
    if slash:
        assert (KINDS[kind], name) in there(), first
        return
    for each in first.split(","):
        assert each in KINDS, each
    for name in names:
        if "=" not in name and not (verb == "label" and name.endswith("-")):  # a label that is set, or taken away
            assert (KINDS[first], name) in there(), (first, name)


def check_selector(selector: str) -> None:
    key, _, value = selector.partition("=")
    everything: list[Object] = [*objects(), *(pod for _, pod in pods())]
    assert any(each["metadata"]["labels"].get(key) == value for each in everything), selector


def pods() -> list[tuple[str, Any]]:
    return [(each["kind"], each["spec"]["template"]) for each in objects() if each["kind"] == "StatefulSet"]


def check_inside(words: list[str]) -> None:
    assert words[0] == "python"
    if words[1:3] == ["-m", "rest_api.cli"]:
        check_ours(program(), words[3:])
        return
    if words[1:3] == ["-m", "signer_service"]:
        check_ours(signer_cli, words[3:])
        return
    assert words[1] == "-c"
    compile(words[2], "<runbook>", "exec")
    for path in re.findall(r'"(/run/[^"]+)"', words[2]):
        mounts = [mount for _, pod in pods() for mount in pod["spec"]["containers"][0]["volumeMounts"]]
        assert any(path == each["mountPath"] or path.startswith(each["mountPath"] + "/") for each in mounts), path


def test_each_runbook_says_symptom_check_action_and_verification_in_this_order() -> None:
    assert len(PARTS) >= 13
    for heading, part in PARTS.items():
        said = re.findall(r"^\*\*(Symptom|Check|Action|Verification)\.\*\*", part, re.MULTILINE)
        assert said == ["Symptom", "Check", "Action", "Verification"], heading
        # The last two are worth nothing without a way to do them.
        assert re.search(r"^    \S", part, re.MULTILINE), heading


def test_every_command_begins_with_a_program_that_is_checked_below() -> None:
    used = {words[0] for line in COMMANDS for words in commands_of(line)}
    assert used == {"signer-flow", "kubectl", "helm", "python", "umask", "mkdir", "base64"}
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("words", of_program("signer-flow"), ids=" ".join)
def test_every_command_of_ours_takes_the_options_it_is_given(words: list[str]) -> None:
    check_ours(program(), words[1:])


@pytest.mark.parametrize("words", of_program("python"), ids=" ".join)
def test_every_command_of_the_signers_program_takes_the_options_it_is_given(words: list[str]) -> None:
    if words[1] == "-c":
        compile(words[2], "<runbook>", "exec")
        return
    assert words[1:3] == ["-m", "signer_service"]
    check_ours(signer_cli, words[3:])


@pytest.mark.helm
@pytest.mark.parametrize("words", of_program("kubectl"), ids=" ".join)
def test_every_kubectl_names_objects_labels_and_paths_that_there_are(words: list[str]) -> None:
    check_kubectl(words)


@cache
def options_of(verb: str) -> set[str]:
    done = run("helm", *verb.split(), "--help")
    assert done.returncode == 0
    return set(re.findall(r"--[a-z-]+", done.stdout))


@pytest.mark.helm
@pytest.mark.parametrize("words", of_program("helm"), ids=" ".join)
def test_every_helm_command_has_its_options_its_chart_and_values_that_it_takes(words: list[str]) -> None:
    verb, rest = words[1], words[2:]
    if verb == "get":
        verb, rest = f"get {rest[0]}", rest[1:]
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    assert given <= options_of(verb)
    assert rest[0].startswith(RELEASE)
    if verb in {"install", "upgrade"}:
        assert ROOT / rest[1] == CHART
        # Without the values of the release its committee, its tokens and its broker would be those of the chart.
        assert given & {"--reset-then-reuse-values", "--values"}
    sets = [part for at, word in enumerate(words) if word == "--set" for part in ("--set", words[at + 1])]
    done = run("helm", "template", RELEASE, CHART, *sets)
    assert done.returncode == 0, done.stderr


@pytest.mark.helm
@pytest.mark.parametrize(
    "line",
    [
        "kubectl -n signer-flow delete pvc share-signer-flow-signer-9",
        "kubectl -n signer-flow get secret signer-flow-keys",
        "kubectl -n signer-flow get pods -l app.kubernetes.io/component=signers",
        "kubectl -n signer-flow delete pod signer-flow-signer-0 --now",
        "kubectl -n signer-flow scale statefulset signer-flow-signer",
        "kubectl -n signer-flow exec signer-flow-signer-0 -- python -c 'open(\"/run/seats/identity.key\")'",
    ],
)
def test_a_command_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_kubectl(words_of(line))


@pytest.mark.parametrize("line", ["refreshes --wait", "refresh --now", "prove --count many"])
def test_a_command_of_ours_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises((AssertionError, typer.exceptions.TyperException)):
        check_ours(program(), line.split())


def blocks(text: str) -> list[str]:
    return re.findall(r"(?:^    +\S.*\n)+", text, re.MULTILINE)


def writes_a_key(block: str) -> bool:
    return re.search(r"(operator\\.key|identity\.key|edge\.key).*>", block) is not None


def test_whatever_writes_a_key_into_a_file_lets_nobody_else_read_it() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    found = [block for block in [*blocks(TEXT), *blocks(notes)] if writes_a_key(block)]
    assert len(found) == 5
    for block in found:
        before, umask, _ = block.partition("umask 077\n")
        assert umask, block
        assert not writes_a_key(before), block


def test_what_is_left_out_or_said_for_one_upgrade_does_not_stay_so() -> None:
    """Values are kept from upgrade to upgrade: a check that is switched off would be off for ever, and in silence."""
    assert "upgradeCheck.enabled=false" not in TEXT
    part = PARTS["Suspected compromise"]
    assert part.index("replaceSeats={3}") < part.index("replaceSeats=null")


def test_every_command_is_run_on_a_cluster_as_it_stands_or_left_out_with_a_reason() -> None:
    """`lifecycle.sh` takes them out of the text by heading and part, so neither can change without the other."""
    run_there = {line for line in runbook.run_by_script() if not runbook.left_out(line)}
    assert {line for line in COMMANDS if not runbook.left_out(line)} <= run_there
    for beginning, reason in runbook.LEFT_OUT.items():
        assert reason
        assert any(line.startswith(beginning) for line in COMMANDS), beginning


def test_every_alert_has_a_runbook_that_names_it_and_no_other_is_named() -> None:
    (group,) = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-"): part for heading, part in PARTS.items()}
    for rule in group["rules"]:
        assert f"`{rule['alert']}`" in anchors[rule["annotations"]["runbook"].partition("#")[2]], rule["alert"]
    assert set(re.findall(r"`(SignerFlow\w+)`", TEXT)) == {rule["alert"] for rule in group["rules"]}
    for link in re.findall(r"\]\(#([a-z0-9-]+)\)", TEXT):
        assert link in anchors


def test_names_of_problems_alarms_topics_and_settings_in_the_text_exist() -> None:
    from common.observability.metric_table import SPECS
    from signer_service.settings import Settings

    (alarm,) = SPECS["alarm"].labels
    assert {"ceremony_log_forked", "fold_differs", "unerased", "old_epoch_held"} <= set(alarm.values or ())
    for code in ("overloaded", "quorum-lost", "broker-unavailable"):
        assert f"`{code}`" in TEXT
        assert code in problems.TABLE
    for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)*_MS)`", TEXT):
        assert name.lower() in Settings.model_fields
    known = {spec.name for spec in all_topics("", 2, 3)}
    for topic in re.findall(r"`(signer\.v1\.\w+)`", TEXT):
        assert topic in known, topic
