"""k8s/: what is there for those without helm is what the chart would install, and stays so."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from common.wire.topics import REQUEST_PARTITIONS
from tests.deploy.chart import Object, supported
from tests.deploy.pod_security import own_rules, pod_templates, violations
from tests.deploy.test_chart import conform
from tests.deploy.tools import CHART, ROOT, run

yaml: Any = import_module("yaml")
K8S = ROOT / "k8s"
PLAIN = K8S / "signer-flow.yaml"
APACHE = K8S / "kafka" / "apache" / "kafka-single-node.yaml"
STRIMZI = K8S / "kafka" / "strimzi" / "kafka-single-node.yaml"
CONFLUENT = K8S / "kafka" / "confluent" / "confluent-platform-singlenode.yaml"
HOOKS_LEFT_OUT = {"test", "upgrade-check", "hand-on"}


def parsed(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def named(kind: str, path: Path = PLAIN) -> list[Object]:
    return [each for each in parsed(path) if each["kind"] == kind]


def component(thing: Object) -> str:
    return str(thing["metadata"]["labels"]["app.kubernetes.io/component"])


@pytest.mark.helm
def test_the_plain_manifest_is_what_make_k8s_makes_of_the_chart_today() -> None:
    run("helm", "version")
    command = [sys.executable, str(ROOT / ".ci" / "plain_manifests.py")]
    made = [subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout for _ in range(2)]
    assert made[0] == made[1]
    assert made[0] == PLAIN.read_text(), "the chart has changed: run `make k8s`"


@pytest.mark.helm
def test_it_has_every_object_of_the_chart_but_those_that_only_helm_runs() -> None:
    done = run("helm", "template", "signer-flow", CHART, "--namespace", "signer-flow")
    chart = [each for each in yaml.safe_load_all(done.stdout) if each and component(each) not in HOOKS_LEFT_OUT]
    plain = parsed(PLAIN)
    assert len(plain) == len(chart)
    for thing in plain:
        name = re.sub(r"(provision)-[0-9a-f]{8}$", r"\1", thing["metadata"]["name"])
        (same,) = [each for each in chart if (each["kind"], each["metadata"]["name"]) == (thing["kind"], name)]
        if thing["kind"] != "ValidatingAdmissionPolicy":
            assert thing.get("spec") == same.get("spec"), name
        assert thing.get("rules") == same.get("rules")


@pytest.mark.helm
def test_other_values_make_another_manifest_and_a_changed_job_has_another_name() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "plain_manifests.py"), "--set", "committee.size=5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    (now,) = [each for each in named("Job") if component(each) == "provision"]
    (other,) = [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["kind"] == "Job" and component(each) == "provision"
    ]
    assert now["metadata"]["name"] != other["metadata"]["name"]
    refused = subprocess.run(
        [*command, "--set", "nonsense=1"], capture_output=True, text=True, timeout=100, check=False
    )
    assert refused.returncode == 1
    assert "nonsense" in refused.stderr


def test_the_head_has_the_job_of_before_taken_away_first_so_that_it_runs_for_a_committee_that_comes_back() -> None:
    """3 signers, 5, and 3 again: the name of the third Job is that of the first, which is still there and done."""
    head = re.findall(r"^#   (kubectl .*)$", PLAIN.read_text().partition("---")[0], re.MULTILINE)
    (taken,) = [at for at, line in enumerate(head) if " delete job " in line]
    assert head[taken].endswith("-l app.kubernetes.io/component=provision --ignore-not-found")
    applied = [at for at, line in enumerate(head) if line.startswith("kubectl apply") and "signer-flow.yaml" in line]
    assert head.index("kubectl apply --filename k8s/namespace.yaml") < taken < min(applied)


def test_nothing_in_it_needs_helm() -> None:
    text = PLAIN.read_text()
    assert "helm" not in re.sub(r"^#.*", "", text, flags=re.MULTILINE).lower()
    for thing in parsed(PLAIN):
        if not thing["kind"].startswith("ValidatingAdmissionPolicy"):
            assert thing["metadata"]["namespace"] == "signer-flow"
    (job,) = [each for each in named("Job") if component(each) == "provision"]
    chosen = {each["kind"] for each in parsed(PLAIN) if component(each) == "provision"}
    assert chosen == {"ServiceAccount", "Role", "RoleBinding", "Job"}, "what its head has applied first is all it needs"
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "signer-flow-provision"


@pytest.mark.helm
@pytest.mark.parametrize(
    "path", [PLAIN, APACHE, K8S / "nodeport.yaml", K8S / "namespace.yaml"], ids=lambda path: path.stem
)
def test_plain_objects_are_what_the_oldest_and_the_newest_kubernetes_take(path: Path) -> None:
    for version in supported():
        found = conform(version, path.read_text())
        assert found["resources"] == []
        assert found["summary"]["valid"] == len(parsed(path))


@pytest.mark.parametrize("path", [PLAIN, APACHE], ids=lambda path: path.stem)
def test_their_pods_keep_pod_security_restricted(path: Path) -> None:
    pods = [each for thing in parsed(path) for each in pod_templates(thing)]
    assert pods
    for name, pod in pods:
        assert violations(pod) + own_rules(pod) == [], name


def test_the_port_of_each_node_leads_to_the_api_pods() -> None:
    (service,) = parsed(K8S / "nodeport.yaml")
    (pods,) = [each for each in named("StatefulSet") if component(each) == "rest-api"]
    labels = pods["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in pods["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert service["metadata"]["name"] not in {each["metadata"]["name"] for each in named("Service")}


def kafka_settings(path: Path) -> dict[str, str]:
    """The broker's settings, however they are written down."""
    for thing in parsed(path):
        if thing["kind"] == "StatefulSet":
            (container,) = thing["spec"]["template"]["spec"]["containers"]
            given = {each["name"]: each.get("value", "") for each in container["env"]}
            return {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
        if thing["kind"] == "Kafka" and "kafka" in thing["spec"]:
            return {name: str(value).lower() for name, value in thing["spec"]["kafka"]["config"].items()}
        if thing["kind"] == "Kafka":
            return dict(line.split("=", 1) for line in thing["spec"]["configOverrides"]["server"])
    raise AssertionError(path)


@pytest.mark.parametrize("path", [APACHE, STRIMZI, CONFLUENT], ids=["apache", "strimzi", "confluent"])
def test_each_example_of_a_broker_has_one_node_one_copy_and_makes_no_topic_by_itself(path: Path) -> None:
    settings = kafka_settings(path)
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["group.initial.rebalance.delay.ms"] == "0"
    assert settings["offsets.topic.replication.factor"] == "1"
    assert settings["transaction.state.log.replication.factor"] == "1"
    for thing in parsed(path):
        assert thing["spec"].get("replicas", 1) == 1, thing["kind"]
        assert "zookeeper" not in str(thing).lower(), "KRaft"


def test_the_examples_of_operators_are_of_the_versions_that_they_name() -> None:
    assert {each["apiVersion"] for each in parsed(STRIMZI)} == {"kafka.strimzi.io/v1"}
    assert [each["kind"] for each in parsed(STRIMZI)] == ["KafkaNodePool", "Kafka"]
    pool, kafka = parsed(STRIMZI)
    assert pool["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]
    assert set(pool["spec"]["roles"]) == {"broker", "controller"}
    assert {each["apiVersion"] for each in parsed(CONFLUENT)} == {"platform.confluent.io/v1beta1"}
    controller, kafka = parsed(CONFLUENT)
    assert (controller["kind"], kafka["kind"]) == ("KRaftController", "Kafka")
    assert kafka["spec"]["dependencies"]["kRaftController"]["clusterRef"]["name"] == controller["metadata"]["name"]


@pytest.mark.helm
@pytest.mark.parametrize("path", [APACHE, STRIMZI, CONFLUENT], ids=["apache", "strimzi", "confluent"])
def test_the_chart_takes_the_values_that_each_example_names(path: Path) -> None:
    """And its network rules let signers out to the port that it names."""
    (command,) = re.findall(r"^#   helm install (.*(?:\n#     .*)*)", path.read_text(), re.MULTILINE)
    words = re.findall(r"--set (\S+)", command)
    done = run(
        "helm", "template", "signer-flow", CHART, *(word for each in words for word in ("--set", each.strip("'")))
    )
    assert done.returncode == 0, done.stderr
    (address,) = set(re.findall(r'KAFKA_BOOTSTRAP\n +value: "([^"]+)"', done.stdout))
    (said,) = re.findall(r"answers at (\S+:\d+)\.", path.read_text())
    assert address.replace(".cluster.local", "") == said.replace(".cluster.local", "")
    (policy,) = [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "signer-flow-signer"
    ]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert int(address.rpartition(":")[2]) in ports


def test_the_number_of_partitions_that_the_chart_refuses_by_is_that_of_the_topic_table() -> None:
    said = re.search(r'"signer-flow.requestPartitions" -}}(\d+)', (CHART / "templates" / "_refusals.tpl").read_text())
    assert said is not None
    assert int(said[1]) == REQUEST_PARTITIONS
