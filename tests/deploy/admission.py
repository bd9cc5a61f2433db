"""Admission policies, evaluated without a cluster: who asks for what, and whether a rendered policy lets him.

The parts of ValidatingAdmissionPolicy (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/)
that the chart uses: which requests match, match conditions, validations, failure policy. The expressions run in a CEL
library that lacks CEL's optional values, so those are written out before; what it cannot evaluate counts as an error,
which `failurePolicy: Fail` makes a refusal, as on a cluster.
"""

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from tests.deploy.chart import NAMESPACE, Object, objects

celpy: Any = import_module("celpy")

_KEY = re.compile(r"([\w.]+)\.\?(\w+)\[\?('[^']+')\]\.orValue\(([^()]*)\)")
_FIELD = re.compile(r"([\w.]+)\.\?(\w+)\.orValue\(([^()]*)\)")


@dataclass(frozen=True)
class Request:
    """What somebody asks of the API server. ``before`` and ``after`` are the object; None: there is none."""

    operation: str
    group: str
    resource: str
    before: Object | None = None
    after: Object | None = None
    sub_resource: str = ""
    user: str = "somebody"
    namespace: str = NAMESPACE
    namespace_labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        thing = self.after or self.before or {}
        return str(thing["metadata"]["name"])


class Refused(Exception):
    """The request is denied; the message is what its sender reads."""


def written_out(expression: str) -> str:
    """CEL without optional values: ``a.?b.orValue(c)`` and ``a.?b[?'k'].orValue(c)``."""
    expression = _KEY.sub(r"(has(\1.\2) && \3 in \1.\2 ? \1.\2[\3] : \4)", expression)
    return _FIELD.sub(r"(has(\1.\2) ? \1.\2 : \3)", expression)


def evaluate(expression: str, request: Request) -> Any:
    """The expression's value.

    Raises:
        celpy.CELEvalError: there is none.
    """
    environment = celpy.Environment()
    program = environment.program(environment.compile(written_out(expression)))
    given = {
        "request": {
            "operation": request.operation,
            "resource": {"group": request.group, "resource": request.resource},
            "userInfo": {"username": request.user},
            "namespace": request.namespace,
            "name": request.name,
            # What is empty is not there at all, and whoever asks for it gets an error.
            **({"subResource": request.sub_resource} if request.sub_resource else {}),
        },
        "object": request.after,
        "oldObject": request.before,
    }
    value = program.evaluate({name: celpy.json_to_cel(each) for name, each in given.items()})
    if isinstance(value, Exception):
        raise value
    return value


def matches(policy: Object, request: Request) -> bool:
    """Whether the policy looks at this request at all."""
    constraints = policy["spec"]["matchConstraints"]
    own = {"kubernetes.io/metadata.name": request.namespace, **request.namespace_labels}
    if not constraints["namespaceSelector"]["matchLabels"].items() <= own.items():
        return False
    path = request.resource + (f"/{request.sub_resource}" if request.sub_resource else "")
    return any(
        request.group in rule["apiGroups"]
        and request.operation in rule["operations"]
        and path in rule["resources"]
        and request.name in rule.get("resourceNames", [request.name])
        for rule in constraints["resourceRules"]
    )


def admit(request: Request, sets: tuple[str, ...] = (), *, policies: tuple[Object, ...] | None = None) -> None:
    """Return if every policy of the release lets the request pass.

    Raises:
        Refused: one does not.
    """
    everything = objects(sets)
    bound = {
        each["spec"]["policyName"]
        for each in everything
        if each["kind"] == "ValidatingAdmissionPolicyBinding" and "Deny" in each["spec"]["validationActions"]
    }
    for policy in policies or everything:
        if policy["kind"] == "ValidatingAdmissionPolicy" and policy["metadata"]["name"] in bound:
            _ask(policy, request)


def _ask(policy: Object, request: Request) -> None:
    spec = policy["spec"]
    if not matches(policy, request):
        return
    if not all(evaluate(each["expression"], request) for each in spec.get("matchConditions", [])):
        return
    for validation in spec["validations"]:
        try:
            holds = bool(evaluate(validation["expression"], request))
        except celpy.CELEvalError as error:
            if spec["failurePolicy"] == "Fail":
                raise Refused(f"expression resulted in error: {error}") from error
            continue
        if not holds:
            if "messageExpression" in validation:
                raise Refused(str(evaluate(validation["messageExpression"], request)))
            raise Refused(validation["message"])
