"""Mistakes with signers, shares and keys, tried against the policies of the chart as it would be installed."""

import copy
from typing import Any

import pytest

from tests.deploy.admission import Refused, Request, admit, written_out
from tests.deploy.chart import NAMESPACE, RELEASE, WAYS, Object, objects, one

pytestmark = pytest.mark.helm
SIGNER = f"{RELEASE}-signer"
FIVE = WAYS["five of which three sign, monitored"]


def signer(sets: tuple[str, ...] = (), **spec: Any) -> Object:
    found = copy.deepcopy(one("StatefulSet", SIGNER, sets))
    found["spec"].update(spec)
    return found


def scale(replicas: int | None, name: str = SIGNER) -> Request:
    spec = {} if replicas is None else {"replicas": replicas}
    after = {"kind": "Scale", "metadata": {"name": name}, "spec": spec}
    return Request("UPDATE", "apps", "statefulsets", before=after, after=after, sub_resource="scale")


def thing(name: str, labels: dict[str, str] | None = None) -> Object:
    return {"metadata": {"name": name, **({"labels": labels} if labels is not None else {})}}


def delete(resource: str, of: Object, user: str = "somebody", namespace: str = NAMESPACE) -> Request:
    return Request("DELETE", "", resource, before=of, user=user, namespace=namespace)


def share(ordinal: int = 0, **more: str) -> Object:
    """A claim as the StatefulSet's controller makes it: with the labels of the template."""
    (template,) = one("StatefulSet", SIGNER)["spec"]["volumeClaimTemplates"]
    name = f"{template['metadata']['name']}-{SIGNER}-{ordinal}"
    return thing(name, {**template["metadata"]["labels"], **more})


@pytest.mark.parametrize("replicas", [0, 1, 2, 4, None])
def test_scaling_signers_is_refused_and_the_message_says_what_to_do_instead(replicas: int | None) -> None:
    """None: the field is left out where it is 0."""
    with pytest.raises(Refused, match=r"is not scaled\. To change the committee, .*helm upgrade .*committee.size=N"):
        admit(scale(replicas))


def test_scaling_to_the_committee_and_scaling_others_is_nobodys_business() -> None:
    admit(scale(3))
    admit(scale(5), FIVE)
    admit(scale(9, f"{RELEASE}-rest-api"))


def test_an_edit_of_the_number_of_signers_is_refused_and_of_anything_else_is_not() -> None:
    before = signer()
    for replicas in (1, 2, 4):
        with pytest.raises(Refused, match="has one pod per seat of the committee"):
            admit(Request("UPDATE", "apps", "statefulsets", before, signer(replicas=replicas)))
    admit(Request("UPDATE", "apps", "statefulsets", before, signer(minReadySeconds=99)))


def test_taking_the_annotation_away_does_not_open_the_way() -> None:
    bare = signer(replicas=1)
    del bare["metadata"]["annotations"]
    with pytest.raises(Refused):
        admit(Request("UPDATE", "apps", "statefulsets", signer(), bare))


def test_an_upgrade_that_changes_the_committee_passes_the_guard_of_before() -> None:
    admit(Request("UPDATE", "apps", "statefulsets", signer(), signer(FIVE)))
    admit(Request("UPDATE", "apps", "statefulsets", signer(FIVE), signer()), FIVE)


@pytest.mark.parametrize("ordinal", [0, 2, 7])
def test_the_volume_of_a_share_is_not_deleted_until_it_is_marked(ordinal: int) -> None:
    with pytest.raises(
        Refused, match=f"depends on persistentvolumeclaims .*-{ordinal}.*label it signer-flow/retired=true"
    ):
        admit(delete("persistentvolumeclaims", share(ordinal)))
    admit(delete("persistentvolumeclaims", share(ordinal, **{"signer-flow/retired": "true"})))
    with pytest.raises(Refused):
        admit(delete("persistentvolumeclaims", share(ordinal, **{"signer-flow/retired": "yes"})))


def test_the_volume_of_the_bundled_broker_is_kept_as_well_for_the_log_lies_there() -> None:
    (template,) = one("StatefulSet", f"{RELEASE}-kafka")["spec"]["volumeClaimTemplates"]
    with pytest.raises(Refused):
        admit(delete("persistentvolumeclaims", thing(f"data-{RELEASE}-kafka-0", template["metadata"]["labels"])))


@pytest.mark.parametrize("name", [f"share-{SIGNER}-1", f"data-{RELEASE}-kafka-0"])
@pytest.mark.parametrize("label", [None, "another-release"])
def test_a_volume_is_known_by_its_name_whatever_its_labels_say(name: str, label: str | None) -> None:
    """One that was made by hand to bind a disk again has none, and one of a release before under the same full name has
    those of that release: pods take them all the same."""
    labels = None if label is None else {"app.kubernetes.io/instance": label}
    with pytest.raises(Refused, match=f"depends on persistentvolumeclaims {name}"):
        admit(delete("persistentvolumeclaims", thing(name, labels)))
    admit(delete("persistentvolumeclaims", thing(name, {"signer-flow/retired": "true"})))


@pytest.mark.parametrize("name", ["operator-key", "edge-key", "identities", "sealing-keys"])
def test_a_secret_with_keys_is_not_deleted_until_it_is_marked(name: str) -> None:
    with pytest.raises(Refused, match=f"depends on secrets {RELEASE}-{name}"):
        admit(delete("secrets", thing(f"{RELEASE}-{name}")))
    admit(delete("secrets", thing(f"{RELEASE}-{name}", {"signer-flow/retired": "true"})))


def test_secrets_that_were_made_elsewhere_are_guarded_by_their_own_names() -> None:
    sets = WAYS["keys made elsewhere"]
    for name in ("my-edgesecret", "my-identitiessecret", "my-sealingsecret"):
        with pytest.raises(Refused):
            admit(delete("secrets", thing(name)), sets)
    with pytest.raises(Refused):
        admit(delete("configmaps", thing("my-roster")), sets)


def change(resource: str, before: Object, after: Object) -> Request:
    return Request("UPDATE", "", resource, before, after)


def keys(name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    return {**thing(name, labels), "data": {key.replace("_", "-"): value for key, value in data.items()}}


@pytest.mark.parametrize("name", ["operator-key", "edge-key", "identities", "sealing-keys"])
def test_a_key_in_a_secret_is_neither_taken_out_nor_changed_until_the_secret_is_marked(name: str) -> None:
    secret = f"{RELEASE}-{name}"
    before = keys(secret, sf_signer_0="AAAA", sf_signer_1="BBBB")
    bad = [
        keys(secret, sf_signer_0="AAAA"),
        keys(secret, sf_signer_0="AAAA", sf_signer_1="CCCC"),
        keys(secret, sf_signer_1="BBBB"),
        keys(secret),
        thing(secret),
        # Marking it and changing it are two steps.
        keys(secret, {"signer-flow/retired": "true"}, sf_signer_0="AAAA"),
    ]
    for after in bad:
        with pytest.raises(Refused, match=f"a key in secrets {secret} .* label it signer-flow/retired=true"):
            admit(change("secrets", before, after))
    marked = keys(secret, {"signer-flow/retired": "true"}, sf_signer_0="AAAA", sf_signer_1="BBBB")
    for after in bad:
        admit(change("secrets", marked, after))


def test_keys_are_added_and_labels_changed_as_ever() -> None:
    secret = f"{RELEASE}-sealing-keys"
    before = keys(secret, sf_signer_0="AAAA")
    admit(change("secrets", before, keys(secret, sf_signer_0="AAAA", sf_signer_1="BBBB")))
    admit(change("secrets", before, keys(secret, {"a": "b"}, sf_signer_0="AAAA")))
    admit(change("secrets", thing(secret), before))
    admit(change("secrets", keys("somebody-elses", a="AAAA"), keys("somebody-elses", a="BBBB")))


def test_the_roster_becomes_another_and_the_operator_never() -> None:
    def roster(**data: str) -> Object:
        return {**thing(f"{RELEASE}-roster"), "binaryData": {key.replace("_", "."): each for key, each in data.items()}}

    before = roster(operator_pub="AAAA", roster_avro="BBBB")
    admit(change("configmaps", before, roster(operator_pub="AAAA", roster_avro="CCCC")))
    for after in (
        roster(operator_pub="CCCC", roster_avro="BBBB"),
        roster(roster_avro="BBBB"),
        roster(operator_pub="AAAA"),
        thing(f"{RELEASE}-roster"),
    ):
        with pytest.raises(Refused, match="a key in configmaps"):
            admit(change("configmaps", before, after))


def test_the_roster_and_the_namespace_are_not_deleted() -> None:
    with pytest.raises(Refused, match="depends on configmaps"):
        admit(delete("configmaps", thing(f"{RELEASE}-roster")))
    with pytest.raises(Refused, match="First: helm uninstall"):
        admit(delete("namespaces", thing(NAMESPACE)))


def test_what_is_not_ours_and_what_lies_elsewhere_is_deleted_as_ever() -> None:
    admit(delete("secrets", thing("somebody-elses")))
    admit(delete("secrets", thing("sh.helm.release.v1.signer-flow.v1")))
    admit(delete("configmaps", thing("kube-root-ca.crt")))
    admit(delete("persistentvolumeclaims", thing("other", {"app.kubernetes.io/name": "postgres"})))
    admit(delete("persistentvolumeclaims", thing("bare")))
    admit(delete("persistentvolumeclaims", thing("share-another-release-signer-0")))
    for elsewhere in (share(), thing(f"{RELEASE}-identities")):
        for resource in ("persistentvolumeclaims", "secrets"):
            admit(delete(resource, elsewhere, namespace="elsewhere"))


def test_a_namespace_that_goes_is_not_kept_half_gone() -> None:
    gone = "system:serviceaccount:kube-system:namespace-controller"
    admit(delete("secrets", thing(f"{RELEASE}-identities"), user=gone))


def test_each_policy_denies_fails_closed_and_is_bound() -> None:
    policies = [each for each in objects() if each["kind"] == "ValidatingAdmissionPolicy"]
    bindings = {each["spec"]["policyName"]: each for each in objects() if each["kind"].endswith("PolicyBinding")}
    assert len(policies) == len(bindings) == 2
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert bindings[policy["metadata"]["name"]]["spec"]["validationActions"] == ["Deny"]
        assert NAMESPACE in policy["metadata"]["name"], "policies are the cluster's: two releases must not share one"


def test_without_its_expression_a_guard_guards_nothing_so_these_tests_can_fail() -> None:
    policies = tuple(copy.deepcopy(objects()))
    for policy in policies:
        for validation in policy["spec"].get("validations", []) if "Policy" in policy["kind"] else []:
            validation["expression"] = "true"
    admit(scale(0), policies=policies)
    admit(delete("persistentvolumeclaims", share()), policies=policies)


def test_where_guards_are_switched_off_there_are_none() -> None:
    admit(scale(0), WAYS["without guards"])


def test_optional_values_are_written_out_as_they_are_meant() -> None:
    assert written_out("a.b.?c.orValue(0) == 1") == "(has(a.b.c) ? a.b.c : 0) == 1"
    assert written_out("a.?b[?'x/y'].orValue('')") == "(has(a.b) && 'x/y' in a.b ? a.b['x/y'] : '')"
