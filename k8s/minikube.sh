#!/usr/bin/env bash
# From nothing to the open page: starts minikube, brings the images into it, installs the chart, lets the cluster sign
# something, and opens /sign. Run again it goes on where it stopped, and upgrades with the values of before. Each step is checked before the next.
#   k8s/minikube.sh              PROFILE, NAMESPACE, RELEASE, TAG, CPUS, MEMORY and OPEN=0 can be set in the environment
#   k8s/minikube.sh --set committee.size=5 --set committee.threshold=3      what follows goes to helm
# Undo: minikube delete --profile signer-flow     (with it go the keys)
set -euo pipefail
cd "$(dirname "$0")/.."

PROFILE=${PROFILE:-signer-flow}
NAMESPACE=${NAMESPACE:-signer-flow}
RELEASE=${RELEASE:-signer-flow}
TAG=${TAG:-local}
CPUS=${CPUS:-2}
MEMORY=${MEMORY:-4g}
OPEN=${OPEN:-1}
TIMEOUT=${TIMEOUT:-10m}
service=$RELEASE-rest-api
[[ $RELEASE == *signer-flow* ]] || service=$RELEASE-signer-flow-rest-api

step() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'minikube.sh: %s\n' "$*" >&2; exit 1; }
kube() { kubectl --context "$PROFILE" --namespace "$NAMESPACE" "$@"; }

step "tools"
for each in minikube:https://minikube.sigs.k8s.io/docs/start kubectl:https://kubernetes.io/docs/tasks/tools helm:https://helm.sh/docs/intro/install; do
  command -v "${each%%:*}" >/dev/null || fail "there is no ${each%%:*}: see ${each#*:}"
done
[[ -f helm/signer-flow/Chart.yaml ]] || fail "there is no chart in $PWD/helm/signer-flow"

step "cluster $PROFILE"
if [[ $(minikube status --profile "$PROFILE" --format '{{.APIServer}}' 2>/dev/null || true) != Running ]]; then
  minikube start --profile "$PROFILE" --cpus "$CPUS" --memory "$MEMORY" ||
    fail "the cluster did not start; what it says is above, and 'minikube logs --profile $PROFILE' says more"
fi
kubectl --context "$PROFILE" wait node --all --for=condition=Ready --timeout=180s >&2 ||
  fail "the node is not ready: kubectl --context $PROFILE describe nodes"

step "images"
for each in rest-api signer-service; do
  image=signer-flow/$each:$TAG
  if command -v docker >/dev/null && docker image inspect "$image" >/dev/null 2>&1; then
    minikube image load "$image" --profile "$PROFILE" || fail "$image is here, and minikube did not take it"
  else
    minikube image build --profile "$PROFILE" --tag "$image" --file docker/Dockerfile --build-opt "target=$each" . ||
      fail "$image could not be built in the cluster: run 'make images', then this again"
  fi
  # `image build` and `image load` say nothing of some failures.
  there=$(minikube image ls --profile "$PROFILE")
  grep -q "$image\$" <<<"$there" || fail "$image is not in the cluster"
done

step "chart"
helm upgrade --install "$RELEASE" helm/signer-flow --kube-context "$PROFILE" --namespace "$NAMESPACE" --create-namespace \
  --reset-then-reuse-values --set image.tag="$TAG" --set restApi.service.type=NodePort --wait --timeout "$TIMEOUT" "$@" || {
  kube get pods >&2 || true
  fail "the release is not ready after $TIMEOUT: 'kubectl --context $PROFILE --namespace $NAMESPACE describe pods' says why; then run this again"
}

step "a signature, checked offline"
helm test "$RELEASE" --kube-context "$PROFILE" --namespace "$NAMESPACE" --timeout "$TIMEOUT" ||
  fail "the cluster does not sign: kubectl --context $PROFILE --namespace $NAMESPACE logs --selector app.kubernetes.io/name=signer-flow --tail 20"

step "the page"
page=$(kube get --raw "/api/v1/namespaces/$NAMESPACE/services/http:$service:http/proxy/sign") ||
  fail "nobody serves the page: kubectl --context $PROFILE --namespace $NAMESPACE get endpointslices"
[[ $page == *"<form"* ]] || fail "what $service serves at /sign is not the page"
echo "minikube service $service --profile $PROFILE --namespace $NAMESPACE --format 'http://{{.IP}}:{{.Port}}/sign'"
[[ $OPEN == 0 ]] && exit 0
exec minikube service "$service" --profile "$PROFILE" --namespace "$NAMESPACE" --format 'http://{{.IP}}:{{.Port}}/sign'
