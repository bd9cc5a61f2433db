#!/usr/bin/env bash
# The life of a release on a real cluster, with the mistakes that an operator makes in it; ends at the first check that
# does not hold. Every line says when it began and how long it took.
#   KUBECONFIG     the cluster; it must have the images (see IMAGES) and a default storage class
#   IMAGES         the tag of ours (local)       NEXT     a second tag of ours there, for an upgrade (next)
#   HELM, NODE_IP  helm (helm), and an address of a node that can be reached from here (that of the first node)
#   NAMESPACE, PORT, WORK  (signer-flow-life, 30800, a temporary folder)
#   DEADLINE_MS    of requests while things change (5000, as the service has it; more on a machine with much else to do)
#   STEPS          only these, in this order, on what an earlier run with the same WORK left behind
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
HELM=${HELM:-helm} NAMESPACE=${NAMESPACE:-signer-flow-life} PORT=${PORT:-30800}
IMAGES=${IMAGES:-local} NEXT=${NEXT:-next} release=signer-flow name=signer-flow
WORK=${WORK:-$(mktemp -d)}
mkdir -p "$WORK"
NODE_IP=${NODE_IP:-$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')}
url=http://$NODE_IP:$PORT
python=.venv/bin/python
began=$SECONDS step=$SECONDS traffic=

k() { kubectl -n "$NAMESPACE" "$@"; }
say() { printf '%s %4d s  %s\n' "$(date +%T)" "$((SECONDS - step))" "$*"; step=$SECONDS; }
fail() {
  printf '%s FAILED: %s\n' "$(date +%T)" "$*" >&2
  k get pods -o wide >&2 || true
  exit 1
}
trap '[ -z "$traffic" ] || kill "$traffic" 2>/dev/null || true' EXIT

# until SECONDS WORDS COMMAND…: the command holds within that time
until_true() {
  local ends=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$ends" ] || fail "not in time: $what"
    sleep 1
  done
}
cli() { $python -m rest_api.cli "$@"; }
key() { cli status --json --url "$url" 2>/dev/null >/dev/null; curl -fsS -m 10 "$url/v1/keys/default" | $python -c "import json,sys; print(json.load(sys.stdin)[\"$1\"])"; }
is() { [ "$(key "$1")" = "$2" ]; }
settled() { cli upgrade-check --url "$url" --wait-s 1; }
# refused WORDS COMMAND…: the command fails and says so
refused() {
  local words=$1 said
  shift
  if said=$("$@" 2>&1); then fail "was not refused: $*"; fi
  grep -q "$words" <<<"$said" || fail "refused, but not with '$words': $said"
  printf '               %s\n' "$(grep -m1 "$words" <<<"$said" | sed -E 's/.*(denied request|:[0-9]+:[0-9]+\)): //' | cut -c1-200)"
}
signs() { cli prove --url "$url" --count 5 --public-key "$public" >/dev/null 2>>"$WORK/prove.log" || fail "it does not sign: $(tail -1 "$WORK/prove.log")"; }
begin_traffic() {
  $python -m tests.deploy.traffic "$url" "${1:-10}" >"$WORK/traffic.json" 2>"$WORK/traffic.err" &
  traffic=$!
}
end_traffic() { # [FAILURES ALLOWED]
  kill "$traffic"
  wait "$traffic" || fail "the traffic ended by itself: $(cat "$WORK/traffic.err")"
  traffic=
  $python - "$WORK/traffic.json" "$public" "${1:-0}" <<'P' || fail "requests failed: $(cat "$WORK/traffic.json") $(tail -3 "$WORK/traffic.err")"
import json, sys
told = json.load(open(sys.argv[1]))
print(f"               {told['signed']} signed in epochs {told['epochs']}, {sum(told['failed'].values())} failed, the slowest in {told['slowest_s']} s")
sys.exit(not told["signed"] or told["keys"] != [sys.argv[2]] or sum(told["failed"].values()) > int(sys.argv[3]))
P
}
# A digest of all that is not made anew.
kept() {
  k get secret $name-operator-key $name-edge-key $name-identities $name-sealing-keys -o jsonpath='{.items[*].data}' | sha256sum
  k get configmap $name-roster -o jsonpath='{.binaryData}' | sha256sum
}
rolled() { k rollout status "statefulset/$1" --timeout=600s >/dev/null || fail "$1 was not rolled out"; }
upgrade() { $HELM upgrade $release helm/signer-flow -n "$NAMESPACE" --reset-then-reuse-values --timeout 15m "$@" >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"; }
# The most signer pods of the set that were not ready at one time, looked at until the file $WORK/watch is gone.
watch_unready() {
  touch "$WORK/watch"
  (
    most=0
    while [ -e "$WORK/watch" ]; do
      ready=$(k get statefulset $name-signer -o jsonpath='{.status.readyReplicas}' 2>/dev/null || echo "$1")
      away=$(($1 - ${ready:-0}))
      [ "$away" -le "$most" ] || most=$away
      echo "$most" >"$WORK/unready"
      sleep 0.5
    done
  ) &
}

do_install() {
  kubectl create namespace "$NAMESPACE" >/dev/null
  $HELM install $release helm/signer-flow -n "$NAMESPACE" --set image.tag="$IMAGES" --set restApi.service.type=NodePort \
    --set restApi.service.nodePort="$PORT" --set-string signer.settings.HEAL_DELAY_MS=5000 --wait --timeout 10m >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"
  say "installed; every pod is ready"
  until_true 60 "a key" key public_key
  public=$(key public_key)
  echo "$public" >"$WORK/public"
  printf 'hello' >"$WORK/message"
  cli sign "$WORK/message" --url "$url" >"$WORK/signature"
  cli verify "$WORK/message" --signature "@$WORK/signature" --public-key "$public" >/dev/null
  curl -fsS -m 10 -H 'Accept: text/plain' -d text=hello "$url/sign" | grep -q '^ok: ' || fail "/sign"
  say "signs on the NodePort, verified offline with $public; /sign answers"
  kubectl auth can-i get secrets -n "$NAMESPACE" --as "system:serviceaccount:$NAMESPACE:$name" >/dev/null && fail "the pods' account may read Secrets"
  [ "$(k get role -o name)" = "role.rbac.authorization.k8s.io/$name-test" ] || fail "rights were left behind: $(k get role -o name)"
  for i in 0 1 2; do
    [ "$(k exec $name-signer-$i -- python -c 'import os; print(sorted(os.listdir("/run/seat")))')" = "['identity.key', 'sealing.key']" ] || fail "signer $i sees other keys"
  done
  say "the Job's rights went with it; a signer sees its own two keys"
}

do_test() {
  $HELM test $release -n "$NAMESPACE" --logs --timeout 10m >"$WORK/test.log" 2>&1 || fail "helm test: $(tail -20 "$WORK/test.log")"
  grep -E 'valid' "$WORK/test.log" | sed 's/^/               /' | cut -c1-160
  say "helm test: signs, verifies, and again with a signer evicted"
}

do_mistakes() {
  refused "is not scaled" k scale statefulset $name-signer --replicas=2
  refused "is not scaled" k scale statefulset $name-signer --replicas=4
  refused "is not scaled" k patch statefulset $name-signer -p '{"spec":{"replicas":2}}'
  refused "depends on persistentvolumeclaims" k delete pvc share-$name-signer-0 --wait=false
  refused "depends on persistentvolumeclaims" kubectl delete --raw "/api/v1/namespaces/$NAMESPACE/persistentvolumeclaims"
  refused "depends on secrets" k delete secret $name-identities
  refused "depends on configmaps" k delete configmap $name-roster
  refused "helm uninstall" kubectl delete namespace "$NAMESPACE" --wait=false
  for bad in committee.threshold=4 committee.size=13 signer.replicas=2 signer.autoscaling.enabled=true kafka.mode=external; do
    refused "" $HELM upgrade $release helm/signer-flow -n "$NAMESPACE" --reset-then-reuse-values --set $bad --dry-run=client
  done
  [ "$(k get pvc -o name | wc -l)" = 4 ] || fail "volumes are gone"
  signs
  say "mistakes are refused, each with what to do"
}

do_upgrade_image() {
  until_true 120 "a settled system" settled
  begin_traffic
  watch_unready 3
  upgrade --set image.tag="$NEXT" --set committee.publicKey="$public"
  rolled $name-signer && rolled $name-rest-api
  rm "$WORK/watch"
  [ "$(cat "$WORK/unready")" -le 1 ] || fail "$(cat "$WORK/unready") signers were away at one time"
  end_traffic 0
  k get pods -l app.kubernetes.io/component=signer -o jsonpath='{.items[*].spec.containers[*].image}' | grep -qv ":$IMAGES" || fail "old images"
  say "upgraded to another image, one pod at a time, with signing going on"
}

do_grow() {
  until_true 120 "a settled system" settled
  epoch=$(key epoch)
  begin_traffic
  upgrade --set committee.size=5 --set committee.threshold=3
  until_true 600 "five signers" is signers 5
  is threshold 3 || fail "the threshold is $(key threshold)"
  is public_key "$public" || fail "the public key changed"
  say "five signers, three together: epoch $epoch -> $(key epoch), the same public key"
  rolled $name-signer && rolled $name-rest-api
  until_true 600 "all five ready in one epoch" settled
  end_traffic 0
  signs
  say "all five hold a share of the newest epoch"
  $HELM test $release -n "$NAMESPACE" --logs --timeout 10m >"$WORK/test.log" 2>&1 || fail "helm test: $(tail -20 "$WORK/test.log")"
  say "helm test, on five"
}

do_shrink() {
  begin_traffic
  $HELM rollback $release -n "$NAMESPACE" --timeout 15m >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"
  until_true 300 "three signers" is signers 3
  is threshold 2 || fail "the threshold is $(key threshold)"
  is public_key "$public" || fail "the public key changed"
  say "rolled back to three signers, who were given the key before two went: epoch $(key epoch)"
  rolled $name-signer && rolled $name-rest-api
  until_true 300 "all three ready" settled
  end_traffic 0
  signs
  [ "$(k get pvc -l app.kubernetes.io/component=signer -o name | wc -l)" = 5 ] || fail "volumes of those that went are gone"
  say "all three are ready, and the volumes of the two that went are kept"
}

do_drain() {
  node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
  drained=$(kubectl drain "$node" --pod-selector "app.kubernetes.io/instance=$release,app.kubernetes.io/component=signer" --delete-emptydir-data --timeout=25s 2>&1 || true)
  kubectl uncordon "$node" >/dev/null
  grep -q "disruption budget" <<<"$drained" || fail "the drain was not stopped: $drained"
  until_true 300 "the evicted signer" settled
  signs
  say "a node's drain stops at the disruption budget: $(grep -m1 -o 'Cannot evict.*budget' <<<"$drained")"
}

do_volume() {
  epoch=$(key epoch)
  k label pvc share-$name-signer-2 signer-flow/retired=true >/dev/null
  k delete pvc share-$name-signer-2 --wait=false >/dev/null
  k delete pod $name-signer-2 --wait >/dev/null
  until_true 300 "a new volume" sh -c "kubectl -n $NAMESPACE get pvc share-$name-signer-2 -o jsonpath='{.metadata.labels}' | grep -qv retired"
  begin_traffic
  until_true 300 "a healed signer" sh -c "test \$(curl -fsS $url/v1/keys/default | $python -c 'import json,sys; print(json.load(sys.stdin)[\"epoch\"])') -gt $epoch"
  until_true 300 "all ready" settled
  end_traffic 0
  is public_key "$public" || fail "the public key changed"
  say "a lost volume: the signer was healed with a new share, epoch $epoch -> $(key epoch)"
}

do_broker() {
  k delete pod $name-kafka-0 --wait >/dev/null
  until_true 300 "the broker" k wait --for=condition=Ready pod/$name-kafka-0 --timeout=1s
  until_true 120 "signing" cli prove --url "$url" --count 1 --public-key "$public"
  say "the broker's pod was deleted: signing is back"
}

do_all_pods() {
  until_true 120 "a settled system" settled
  k delete pods -l "app.kubernetes.io/component in (signer, rest-api)" --wait >/dev/null
  until_true 300 "signing" cli prove --url "$url" --count 1 --public-key "$public"
  until_true 300 "all ready" settled
  say "every signer and API pod deleted at once: the same key signs"
}

do_uninstall() {
  before=$(kept)
  echo "$before" >"$WORK/kept"
  $HELM uninstall $release -n "$NAMESPACE" --wait --timeout 5m >/dev/null 2>&1
  until_true 120 "no pods" sh -c "test -z \"\$(kubectl -n $NAMESPACE get pods -l app.kubernetes.io/component!=test -o name)\""
  [ "$(kept)" = "$before" ] || fail "Secrets or roster changed"
  [ "$(k get pvc -o name | wc -l)" = 6 ] || fail "volumes are gone"
  say "uninstalled: Secrets, roster and volumes are there"
}

do_install_again() {
  $HELM install $release helm/signer-flow -n "$NAMESPACE" --set image.tag="$NEXT" --set restApi.service.type=NodePort \
    --set restApi.service.nodePort="$PORT" --set committee.publicKey="$public" --wait --timeout 10m >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"
  until_true 60 "the key" is public_key "$public"
  signs
  [ "$(kept)" = "$(cat "$WORK/kept")" ] || fail "Secrets or roster changed"
  say "installed again: the same key signs"
}

do_clear_up() {
  $HELM uninstall $release -n "$NAMESPACE" --wait --timeout 5m >/dev/null 2>&1
  # The guards are gone; the API server notices that a moment later.
  until_true 60 "the guards to go" kubectl delete namespace "$NAMESPACE" --timeout=180s
  say "cleared up"
}

STEPS=${STEPS:-install test mistakes upgrade_image grow shrink drain volume broker all_pods uninstall install_again clear_up}
public=$(cat "$WORK/public" 2>/dev/null || true)
for each in $STEPS; do "do_$each"; done
echo "all of it holds; $((SECONDS - began)) s"
