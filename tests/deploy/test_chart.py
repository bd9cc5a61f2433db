"""The chart renders for every way of use to what Kubernetes takes, old and new, and to pods that may do little."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from common.wire.topics import all_topics
from rest_api.settings import Settings as ApiSettings
from signer_service.provision_kubernetes import KEPT
from signer_service.settings import Settings as SignerSettings
from tests.deploy.chart import EXTERNAL, NAMESPACE, RELEASE, WAYS, Object, objects, one, rendered, supported, yaml
from tests.deploy.pod_security import containers, own_rules, pod_templates, violations
from tests.deploy.tools import CHART, FOLDER, ROOT, run

pytestmark = pytest.mark.helm
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, of which Kubernetes has no schema."""
each_way = pytest.mark.parametrize("way", WAYS)
SETTINGS: dict[str, type[BaseSettings]] = {"SIGNER_SERVICE_": SignerSettings, "SIGNER_REST_API_": ApiSettings}


def pods(way: str) -> Iterator[tuple[str, Any]]:
    for thing in objects(WAYS[way]):
        yield from pod_templates(thing)


@each_way
def test_both_helms_make_the_same_of_it(way: str) -> None:
    newer, older = rendered(WAYS[way]), rendered(WAYS[way], "helm3")
    assert list(yaml.safe_load_all(newer)) == list(yaml.safe_load_all(older))


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_lint_of_both_helms_finds_nothing(helm: str) -> None:
    done = run(helm, "lint", CHART, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def conform(version: str, manifest: str) -> Any:
    """What kubeconform says of it, with nothing allowed that Kubernetes' own schemas of that version do not know."""
    place = f"{FOLDER}/schemas/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    options = ("-strict", "-kubernetes-version", version, "-schema-location", place, "-skip", ",".join(sorted(FOREIGN)))
    return json.loads(run("kubeconform", *options, "-summary", "-output", "json", given=manifest).stdout)


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_every_object_of_every_way_is_what_the_oldest_and_the_newest_kubernetes_take(age: str) -> None:
    whole = "\n---\n".join(rendered(sets) for sets in WAYS.values())
    found = conform(dict(zip(("oldest", "newest"), supported(), strict=True))[age], whole)
    assert found["resources"] == []
    everything = [each["kind"] for sets in WAYS.values() for each in objects(sets)]
    assert found["summary"]["valid"] == sum(kind not in FOREIGN for kind in everything)
    assert found["summary"]["skipped"] == sum(kind in FOREIGN for kind in everything)


def test_an_object_with_a_field_that_does_not_exist_is_found() -> None:
    """So that a validator that lets everything through does not pass."""
    found = conform(supported()[1], rendered().replace("podManagementPolicy:", "podManagmentPolicy:"))
    assert found["summary"]["invalid"] == 2
    assert "podManagmentPolicy" in found["resources"][0]["msg"]


@each_way
def test_every_pod_keeps_pod_security_restricted_and_our_own_rules(way: str) -> None:
    found = dict(pods(way))
    assert len(found) >= 2
    assert {name: violations(pod) + own_rules(pod) for name, pod in found.items()} == {name: [] for name in found}


@each_way
def test_only_jobs_that_need_the_api_have_a_token_and_what_runs_on_has_none(way: str) -> None:
    for name, pod in pods(way):
        if pod["spec"]["automountServiceAccountToken"]:
            assert name.startswith(("Job ", "Pod ")), name
            account = pod["spec"]["serviceAccountName"]
            rules = [
                each for each in objects(WAYS[way]) if each["kind"] == "Role" and each["metadata"]["name"] == account
            ]
            assert rules, f"{name}: a token without rights is for nothing"


@each_way
def test_no_role_of_the_release_reads_or_changes_what_it_does_not_name(way: str) -> None:
    assert not [each for each in objects(WAYS[way]) if each["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    for role in (each for each in objects(WAYS[way]) if each["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert rule.get("resourceNames") or set(rule["verbs"]) <= {"create", "list"}, (
                role["metadata"]["name"],
                rule,
            )
            if "secrets" in rule["resources"]:
                assert "list" not in rule["verbs"], "a list shows what is in them"


@each_way
def test_every_variable_that_a_pod_is_given_is_a_setting_of_its_service(way: str) -> None:
    checked = 0
    for name, pod in pods(way):
        for container in containers(pod):
            for variable in container.get("env", []):
                prefix = next((each for each in SETTINGS if variable["name"].startswith(each)), None)
                if prefix is None:
                    continue
                field = variable["name"].removeprefix(prefix).lower()
                assert field in SETTINGS[prefix].model_fields, f"{name}: {variable['name']} is no setting"
                checked += 1
    assert checked >= 6


@each_way
def test_the_variables_together_are_settings_that_the_services_start_with(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for workload, prefix in (("signer", "SIGNER_SERVICE_"), ("rest-api", "SIGNER_REST_API_")):
        pod = one("StatefulSet", f"{RELEASE}-{workload}", WAYS[way])["spec"]["template"]
        given = {each["name"]: each["value"] for each in containers(pod)[0]["env"] if "value" in each}
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            patch.setenv(f"{prefix}INDEX", "1")
            settings = SETTINGS[prefix]()
        assert settings.model_dump()["kafka_bootstrap"]


@each_way
def test_every_port_and_path_of_a_probe_is_one_that_the_service_has(way: str) -> None:
    for name, pod in pods(way):
        for container in containers(pod):
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asks = container.get(probe, {})
                asked = asks.get("httpGet") or asks.get("tcpSocket")
                if asked is None:
                    assert name.startswith(("Job ", "Pod ")), f"{name}: no {probe}"
                    continue
                assert asked["port"] in ports, (name, probe)
                if "httpGet" in asks:
                    assert asked["path"] == ("/readyz" if probe == "readinessProbe" else "/healthz"), (name, probe)
                    # The images listen there: docker/Dockerfile.
                    assert ports[asked["port"]] == 9001


def test_the_ports_of_the_pods_are_those_of_the_images() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert "SIGNER_REST_API_ADMIN_PORT=9001" in dockerfile
    assert "SIGNER_SERVICE_ADMIN_PORT=9001" in dockerfile
    ports = containers(one("StatefulSet", f"{RELEASE}-rest-api")["spec"]["template"])[0]["ports"]
    assert {port["name"]: port["containerPort"] for port in ports} == {
        "http": ApiSettings.model_fields["port"].default,
        "admin": 9001,
    }


@each_way
def test_every_service_leads_to_pods_and_to_a_port_that_they_have(way: str) -> None:
    templates = dict(pods(way))
    for service in (each for each in objects(WAYS[way]) if each["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        chosen = [pod for name, pod in templates.items() if wanted <= pod["metadata"]["labels"].items()]
        assert len(chosen) == 1, f"{service['metadata']['name']} leads to {len(chosen)} sets of pods"
        names = {port["name"] for container in containers(chosen[0]) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@each_way
def test_what_a_pod_mounts_is_there_and_everything_it_names_comes_with_the_release_or_by_value(way: str) -> None:
    whole = objects(WAYS[way])
    claims = {
        claim["metadata"]["name"]
        for thing in whole
        if thing["kind"] == "StatefulSet"
        for claim in thing["spec"].get("volumeClaimTemplates", [])
    }
    accounts = {each["metadata"]["name"] for each in whole if each["kind"] == "ServiceAccount"}
    for name, pod in pods(way):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | claims
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes, (name, mount)
        # A hook that needs no rights may run where the release's account was never made.
        bare = name.endswith(("-upgrade-check", "-hand-on"))
        assert bare or pod["spec"]["serviceAccountName"] in accounts, name
        assert not bare or "serviceAccountName" not in pod["spec"], name


@each_way
def test_no_secret_is_in_the_release_and_nothing_that_holds_a_key_goes_with_it(way: str) -> None:
    """Keys are made in the cluster: what helm stores of a release shows none, and an uninstall takes none along."""
    assert not [each for each in objects(WAYS[way]) if each["kind"] == "Secret"]
    assert not [each for each in objects(WAYS[way]) if each["kind"] == "PersistentVolumeClaim"]
    for thing in (each for each in objects(WAYS[way]) if each["kind"] == "StatefulSet"):
        if thing["spec"].get("volumeClaimTemplates"):
            kept = thing["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}, thing["metadata"]["name"]
            for claim in thing["spec"]["volumeClaimTemplates"]:
                # helm itself knows nothing of volumes that a StatefulSet makes.
                said = {name: each for name, each in KEPT.items() if not name.startswith("helm")}
                assert claim["metadata"]["annotations"] == said, "nor does a tool that clears up"


@each_way
def test_a_signer_sees_its_own_keys_only_and_the_operators_key_is_mounted_nowhere(way: str) -> None:
    signer = one("StatefulSet", f"{RELEASE}-signer", WAYS[way])["spec"]["template"]
    secrets = {each["name"] for each in signer["spec"]["volumes"] if "secret" in each}
    for mount in containers(signer)[0]["volumeMounts"]:
        if mount["name"] in secrets and "ca" not in mount["name"]:
            whole = mount.get("subPath") == "client.properties"
            assert whole or mount["subPathExpr"] == "$(POD_NAME)", mount
            assert mount["readOnly"]
    for name, pod in pods(way):
        assert "operator-key" not in json.dumps(pod["spec"].get("volumes", [])), name


@each_way
def test_what_is_asked_before_an_upgrade_is_pods_that_there_are_by_a_name_that_they_answer_to(way: str) -> None:
    """Not the Service, which may be about to change, and not a name that a pod takes for a stranger's."""
    pods_service = one("Service", f"{RELEASE}-rest-api-pods", WAYS[way])
    assert pods_service["spec"]["publishNotReadyAddresses"]
    served = one("StatefulSet", f"{RELEASE}-rest-api", WAYS[way])
    assert served["spec"]["serviceName"] == pods_service["metadata"]["name"]
    pod = containers(served["spec"]["template"])[0]
    given = {each["name"]: each["value"] for each in pod["env"] if "value" in each}
    allowed = json.loads(given.get("SIGNER_REST_API_ALLOWED_HOSTS", "[]"))
    for name in ("upgrade-check", "hand-on"):
        if name == "upgrade-check" and "upgradeCheck.enabled=false" in WAYS[way]:
            continue
        job = one("Job", f"{RELEASE}-{name}", WAYS[way])
        args = containers(job["spec"]["template"])[0]["args"]
        urls = [each.removeprefix("--url=") for each in args if each.startswith("--url=")]
        hosts = [f"{RELEASE}-rest-api-{ordinal}.{RELEASE}-rest-api-pods" for ordinal in range(len(urls))]
        assert urls == [f"http://{host}:8000" for host in hosts]
        assert len(urls) >= served["spec"].get("replicas", 2)
        assert not allowed or set(hosts) <= set(allowed)


def test_a_pod_that_takes_some_names_only_takes_those_that_the_chart_and_its_runbooks_use() -> None:
    pod = one("StatefulSet", f"{RELEASE}-rest-api", WAYS["to the outside world"])["spec"]["template"]
    given = {each["name"]: each.get("value") for each in containers(pod)[0]["env"]}
    allowed = json.loads(str(given["SIGNER_REST_API_ALLOWED_HOSTS"]))
    assert {"sign.example", "signer-flow.example", "127.0.0.1", "localhost", f"{RELEASE}-rest-api"} <= set(allowed)


@pytest.mark.parametrize(
    "sets",
    [
        ("image.pullPolicy=Always",),
        ("image.pullSecrets={login}",),
        ("image.tag=next",),
        (*EXTERNAL, "kafka.security.existingSecret=other"),
        (*EXTERNAL, "kafka.security.existingSecret=login", "kafka.security.perPod=true"),
        (*EXTERNAL, "kafka.security.existingSecret=login", "kafka.security.caSecret=ca"),
        ("kafka.topics.replication=3",),
        ("restApi.replicas=4",),
    ],
    ids=str,
)
def test_whatever_changes_the_pod_of_the_job_that_makes_topics_changes_its_name(sets: tuple[str, ...]) -> None:
    """Kubernetes changes no Job: an upgrade would end with "field is immutable", when half of it is done."""

    def jobs(sets: tuple[str, ...]) -> dict[str, Any]:
        found = [each for each in objects(sets) if each["kind"] == "Job"]
        (job,) = [each for each in found if each["metadata"]["labels"]["app.kubernetes.io/component"] == "topics"]
        return {job["metadata"]["name"]: job["spec"]}

    before = (*EXTERNAL, "kafka.security.existingSecret=login") if "kafka.mode=external" in sets else ()
    then, now = jobs(before), jobs(sets)
    assert list(then.values()) != list(now.values())
    assert then.keys().isdisjoint(now)


def test_an_external_brokers_own_port_is_one_that_pods_may_reach() -> None:
    sets = ("kafka.mode=external", "kafka.external.bootstrap=a.example:19092\\,b.example:19093\\,c.example:9092")
    for name in ("signer", "rest-api", "topics"):
        policy = one("NetworkPolicy", f"{RELEASE}-{name}", sets)
        ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
        assert {9092, 19092, 19093} <= set(ports)
        assert len(ports) == len(set(ports)) + 1, "53 by both protocols, and nothing twice"


def test_every_pod_of_the_release_logs_in_where_images_come_from() -> None:
    for name, pod in pods("a place of its own"):
        assert pod["spec"]["imagePullSecrets"] == [{"name": "login"}], name


def test_the_bundled_brokers_volume_is_not_filled_by_what_is_not_kept_for_ever() -> None:
    """The log of ceremonies has a limit of its own, which is none (`common.wire.topics`)."""
    broker = one("StatefulSet", f"{RELEASE}-kafka")["spec"]
    given = {each["name"]: each["value"] for each in containers(broker["template"])[0]["env"]}
    kept, segment = int(given["KAFKA_LOG_RETENTION_BYTES"]), int(given["KAFKA_LOG_SEGMENT_BYTES"])
    bounded = [each for each in all_topics("", 2, 12) if each.config.get("retention.bytes") != "-1"]
    assert {each.name for each in all_topics("", 2, 12)} - {each.name for each in bounded} == {"signer.v1.ceremony"}
    most = sum(each.partitions * (kept + segment) for each in bounded if each.cleanup == "delete")
    assert most < 0.9 * 2**30 * int(broker["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"][:-2])


def test_signers_have_no_autoscaler_in_any_way_and_the_budget_keeps_t_of_them() -> None:
    for way, sets in WAYS.items():
        for thing in objects(sets):
            if thing["kind"] == "HorizontalPodAutoscaler":
                assert thing["spec"]["scaleTargetRef"]["name"] == f"{RELEASE}-rest-api", way
        budget = one("PodDisruptionBudget", f"{RELEASE}-signer", sets)["spec"]
        size, threshold = (5, 3) if "committee.size=5" in sets else (3, 2)
        assert budget["minAvailable"] == threshold
        assert one("StatefulSet", f"{RELEASE}-signer", sets)["spec"]["replicas"] == size


def test_the_names_of_a_release_with_a_long_name_stay_in_bounds() -> None:
    """53 characters is what helm takes."""
    whole = [each for sets in WAYS.values() for each in objects(sets)]
    long = objects(
        WAYS["five of which three sign, monitored"], "a-release-with-a-name-as-long-as-helm-takes-it-53-chars"[:53]
    )
    for thing in (*whole, *long):
        name = thing["metadata"]["name"]
        # A StatefulSet's pods get a label with its name and a hash, of 63 characters at most.
        assert len(name) <= (52 if thing["kind"] == "StatefulSet" else 63), name
    for things in (long, *(objects(sets) for sets in WAYS.values())):
        assert len({(each["kind"], each["metadata"]["name"]) for each in things}) == len(things)


@each_way
def test_every_object_is_labelled_as_the_releases_and_lies_in_its_namespace(way: str) -> None:
    for thing in objects(WAYS[way]):
        labels = thing["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "signer-flow"
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/component"]
        assert thing["metadata"].get("namespace", NAMESPACE) == NAMESPACE


def test_monitoring_selects_the_services_that_have_the_port_it_scrapes() -> None:
    sets = WAYS["five of which three sign, monitored"]
    monitor = one("ServiceMonitor", RELEASE, sets)["spec"]
    (endpoint,) = monitor["endpoints"]
    found: list[Object] = [
        each
        for each in objects(sets)
        if each["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    scraped = [each for each in found if endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}]
    assert {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in scraped} == {"signer", "rest-api"}
    assert len(scraped) == 2, "twice scraped is twice counted"
    assert all(each["spec"]["publishNotReadyAddresses"] for each in scraped), "who is not ready tells why"


def test_the_rules_and_the_dashboard_are_the_files_that_are_tested() -> None:
    sets = WAYS["five of which three sign, monitored"]
    text = (CHART / "files" / "rules.yaml").read_text()
    # But that a release looks for itself: another one's figures would hide that its own are gone.
    absent = "absent(signer_flow_quorum_margin_seats)"
    assert text.count(absent) == 1
    rules = yaml.safe_load(text.replace(absent, absent.replace("seats", f'seats{{namespace="{NAMESPACE}"}}')))
    assert one("PrometheusRule", RELEASE, sets)["spec"] == rules
    shown = one("ConfigMap", f"{RELEASE}-dashboard", sets)["data"]["signer-flow.json"]
    assert json.loads(shown) == json.loads((ROOT / "k8s" / "grafana" / "signer-flow.json").read_text())
    for way, values in WAYS.items():
        if values != sets:
            assert not [each for each in objects(values) if each["kind"] in FOREIGN], way


def test_a_threshold_to_be_lowered_is_said_to_provision_and_else_nothing_is() -> None:
    (container,) = one("Job", f"{RELEASE}-provision", ("provision.lowerThresholdFrom=3",))["spec"]["template"]["spec"][
        "containers"
    ]
    assert "--lower-threshold-from=3" in container["args"]
    (container,) = one("Job", f"{RELEASE}-provision")["spec"]["template"]["spec"]["containers"]
    assert not [each for each in container["args"] if "lower" in each]


def test_key_records_reach_provision_as_they_are_and_only_while_they_are_among_the_values() -> None:
    sets = ("provision.keyRecords=leaves-log-generation:1\nQUJD\n", "kafka.topicPrefix=a.")
    job = one("Job", f"{RELEASE}-provision", sets)["spec"]["template"]["spec"]
    (container,) = job["containers"]
    assert {"--key-records=/key-records/key-records", "--topic-prefix=a."} <= set(container["args"])
    (volume,) = [each for each in job["volumes"] if each["name"] == "key-records"]
    given = one("ConfigMap", volume["configMap"]["name"], sets)
    assert given["data"] == {"key-records": "leaves-log-generation:1\nQUJD\n"}
    assert given["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
    (container,) = one("Job", f"{RELEASE}-provision")["spec"]["template"]["spec"]["containers"]
    assert not [each for each in container["args"] if "key-records" in each]
