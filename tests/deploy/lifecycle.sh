#!/usr/bin/env bash
# The life of a release on a real cluster, with the mistakes that an operator makes in it; ends at the first check that
# does not hold. Every line says when it began and how long it took.
# What k8s/runbooks.md says is run as it stands there (`book`); so the release and its namespace have the names of there.
#   KUBECONFIG     the cluster; it must have the images (see IMAGES), and ours with the tag `next` for an upgrade, a
#                  default storage class, and no namespaces `signer-flow` and `kafka`
#   IMAGES         the tag of ours (local)
#   HELM, NODE_IP  helm (helm), and an address of a node that can be reached from here (that of the first node)
#   PORT, WORK     (30800, a temporary folder)
#   DEADLINE_MS    of requests while things change (5000, as the service has it; more on a machine with much else to do)
#   STEPS          only these, in this order, on what an earlier run with the same WORK left behind
# Commands of the runbooks that are not run here, and why:
#     kubectl -n signer-flow port-forward -- it does not end; the port of a node is used instead
#     kubectl -n signer-flow top pods -- a bare cluster has no metrics server
#     python -m signer_service audit -- nobody outside reaches the bundled broker; tests/audit runs it
#     signer-flow topics --acls -- the bundled broker has no authorizer; tests/kafka runs it
#     helm install signer-flow-2 -- one small machine has no room for a second system; it is rendered by test_runbooks.py
#     helm upgrade signer-flow helm/signer-flow --namespace signer-flow --reset-then-reuse-values --set signer.resources -- three CPUs are more than one small machine has; rendered, too
#     kubectl -n signer-flow patch pvc -- most small clusters' storage does not grow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
HELM=$(command -v "${HELM:-helm}") NAMESPACE=signer-flow PORT=${PORT:-30800}
IMAGES=${IMAGES:-local} release=signer-flow name=signer-flow
WORK=${WORK:-$(mktemp -d)}
mkdir -p "$WORK/bin"
NODE_IP=${NODE_IP:-$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')}
url=http://$NODE_IP:$PORT
python=.venv/bin/python
began=$SECONDS step=$SECONDS traffic=
ln -sfn "$HELM" "$WORK/bin/helm"

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
  $python -m tests.deploy.traffic "$url" 10 >"$WORK/traffic.json" 2>"$WORK/traffic.err" &
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
# book HEADING PART [BLOCK]: these commands of the runbooks, as they stand there, in a folder of that runbook
book() {
  local folder=$WORK/book/${1//[^A-Za-z0-9]/-} lines
  mkdir -p "$folder"
  ln -sfn "$PWD/helm" "$folder/helm"
  lines=$($python -m tests.deploy.runbook "$@")
  (
    PATH=$PWD/.venv/bin:$WORK/bin:$PATH
    export SIGNER_FLOW_URL=$url
    cd "$folder"
    bash -euxo pipefail -c "$lines"
  ) >"$WORK/book.log" 2>&1 || fail "runbook $*: $(tail -8 "$WORK/book.log")"
}
rolled() { k rollout status "statefulset/$1" --timeout=600s >/dev/null || fail "$1 was not rolled out"; }
upgrade() {
  rolled $name-signer && until_true 300 "a settled system" settled
  "$HELM" upgrade $release helm/signer-flow -n "$NAMESPACE" --reset-then-reuse-values --timeout 15m "$@" >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"
}
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
    --set restApi.service.nodePort="$PORT" --set-string signer.settings.HEAL_DELAY_MS=5000 \
    --set-string signer.settings.MIN_INTERVAL_MS=1000 --wait --timeout 10m >"$WORK/helm.log" 2>&1 || fail "$(tail -5 "$WORK/helm.log")"
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
  book "Upgrade and rollback" Verification
  grep -E 'valid' "$WORK/book.log" | sed 's/^/               /' | cut -c1-160
  say "helm test: signs, verifies, and again with a signer evicted"
}

# What only looks, on a system that is well.
do_look() {
  book "t-1 signers lost" Check
  book "t or more signers lost" Check
  book "t or more signers lost" Action
  book "t or more signers lost" Verification
  book "Stuck ceremony" Check
  book "Epoch skew" Check
  book "Suspected compromise" Check
  book "Requests fail" Check
  book "Requests fail" Action
  book "Requests fail" Verification
  book "Dead letters" Check
  book "Dead letters" Action
  book "Uninstall" Check
  book "A deleted Secret or ConfigMap" Check
  say "the runbooks' checks"
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
  for bad in committee.threshold=4 committee.size=13 signer.replicas=2 signer.autoscaling.enabled=true kafka.mode=external restApi.service.type=LoadBalancer; do
    refused "" "$HELM" upgrade $release helm/signer-flow -n "$NAMESPACE" --reset-then-reuse-values --set $bad --dry-run=client
  done
  for live in "set kafka.movedFrom to $name-kafka:9092@kafka.mode=external,kafka.external.bootstrap=elsewhere:9092" \
    "put it back@kafka.topicPrefix=b." "cannot change in@signer.storage.size=2Gi" "fullnameOverride back@fullnameOverride=b"; do
    refused "${live%%@*}" "$HELM" upgrade $release helm/signer-flow -n "$NAMESPACE" --reset-then-reuse-values --set "${live#*@}"
  done
  [ "$(k get pvc -o name | wc -l)" = 4 ] || fail "volumes are gone"
  signs
  say "mistakes are refused, each with what to do"
}

do_upgrade_image() {
  until_true 120 "a settled system" settled
  begin_traffic
  watch_unready 3
  book "Upgrade and rollback" Check
  book "Upgrade and rollback" Action 1
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
  book "Add or remove signers" Check
  book "Add or remove signers" Action 1
  until_true 600 "five signers" is signers 5
  is threshold 3 || fail "the threshold is $(key threshold)"
  is public_key "$public" || fail "the public key changed"
  say "five signers, three together: epoch $epoch -> $(key epoch), the same public key"
  rolled $name-signer && rolled $name-rest-api
  until_true 600 "all five ready in one epoch" settled
  end_traffic 0
  signs
  say "all five hold a share of the newest epoch"
  book "Upgrade and rollback" Verification
  say "helm test, on five"
}

do_shrink() {
  begin_traffic
  book "Add or remove signers" Action 2
  until_true 300 "three signers" is signers 3
  is threshold 2 || fail "the threshold is $(key threshold)"
  is public_key "$public" || fail "the public key changed"
  say "three signers again, who were given the key before two went: epoch $(key epoch)"
  rolled $name-signer && rolled $name-rest-api
  until_true 300 "all three ready" settled
  end_traffic 0
  signs
  [ "$(k get pvc -l app.kubernetes.io/component=signer -o name | wc -l)" = 5 ] || fail "volumes of those that went are gone"
  book "Add or remove signers" Verification
  say "all three are ready, and the volumes of the two that went are kept until one is let go of"
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
  begin_traffic
  book "One signer lost" Check
  book "One signer lost" Action
  until_true 300 "a healed signer" sh -c "test \$(curl -fsS $url/v1/keys/default | $python -c 'import json,sys; print(json.load(sys.stdin)[\"epoch\"])') -gt $epoch"
  until_true 300 "all ready" settled
  end_traffic 0
  book "One signer lost" Verification
  is public_key "$public" || fail "the public key changed"
  say "a lost volume: the signer was healed with a new share, epoch $epoch -> $(key epoch)"
}

do_refresh() {
  book "t-1 signers lost" Verification
  book "Epoch skew" Action
  book "Epoch skew" Verification
  book "Stuck ceremony" Verification
  say "refreshed twice, and a signer that was restarted is in the same epoch: $(key epoch)"
}

# Upgrades that change no committee.
do_rollback() {
  upgrade --set signer.minReadySeconds=5
  book "Upgrade and rollback" Action 2
  upgrade --set signer.minReadySeconds=5
  book "Stuck ceremony" Action
  until_true 300 "all ready" settled
  say "rolled back twice, with a signer that was restarted just before"
}

do_compromise() {
  epoch=$(key epoch)
  before=$(k get secret $name-identities -o jsonpath="{.data.$name-signer-2}")
  book "Suspected compromise" Action 1
  book "Suspected compromise" Action 2
  until_true 300 "all ready" settled
  [ "$(k get secret $name-identities -o jsonpath="{.data.$name-signer-2}")" != "$before" ] || fail "the identity is the old one"
  book "Suspected compromise" Action 3
  book "Suspected compromise" Verification
  until_true 300 "all ready" settled
  is public_key "$public" || fail "the public key changed"
  say "a seat was taken from who had its keys: epoch $epoch -> $(key epoch), the same public key"
}

do_operator() {
  before=$(kept)
  book "The operator's key" Check
  book "The operator's key" Action 1
  k get secret $name-operator-key >/dev/null 2>&1 && fail "the operator's key is still there"
  [ "$(stat -c %a "$WORK/book/The-operator-s-key/operator.key")" = 600 ] || fail "others may read the operator's key"
  upgrade --set signer.minReadySeconds=4
  rolled $name-signer
  book "The operator's key" Action 2
  book "The operator's key" Verification
  [ "$(kept)" = "$before" ] || fail "Secrets or roster changed"
  say "the operator's key was away for an upgrade, and is back"
}

do_deleted() {
  before=$(kept)
  k label secret/$name-identities secret/$name-edge-key configmap/$name-roster signer-flow/retired=true >/dev/null
  k delete secret/$name-identities secret/$name-edge-key configmap/$name-roster >/dev/null
  book "A deleted Secret or ConfigMap" Action 1
  book "A deleted Secret or ConfigMap" Action 2
  [ "$(kept)" = "$before" ] || fail "what was deleted did not come back as it was"
  book "A deleted Secret or ConfigMap" Verification
  until_true 300 "all ready" settled
  say "Secrets and roster were deleted, and are back from the pods that ran"
}

# The broker asks nobody who he is: a pod may take a topic away, where its image has no tools of Kafka's.
lose_topic() { k exec $name-rest-api-0 -- python -c "from confluent_kafka.admin import AdminClient as A; a = A({'bootstrap.servers': '$name-kafka:9092'}); a.delete_topics(['$1'])['$1'].result(30)"; }
alarmed() { k exec $name-signer-0 -- python -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:9001/metrics").read().decode())' | grep -q '^signer_flow_alarm{alarm="ceremony_log_lost".*} 1'; }
calm() { ! alarmed; }

do_broker() {
  book "Kafka lost" Check
  book "Kafka lost" Action 1
  until_true 300 "the broker" k wait --for=condition=Ready pod/$name-kafka-0 --timeout=1s
  until_true 120 "signing" cli prove --url "$url" --count 1 --public-key "$public"
  until_true 300 "all ready" settled
  say "the broker's pod was deleted: signing is back"
  lose_topic signer.v1.dlq
  book "Kafka lost" Action 2
  until_true 300 "all ready" settled
  say "a topic was deleted and made again"
}

do_log() {
  lose_topic signer.v1.ceremony
  book "Kafka lost" Action 3
  until_true 120 "the alarm" alarmed
  signs
  book "Kafka lost" Action 4
  until_true 300 "all ready" settled
  until_true 120 "the end of the alarm" calm
  book "Kafka lost" Verification
  is public_key "$public" || fail "the public key changed"
  say "the ceremony log was deleted: the same key goes on with another, and is refreshed"
}

do_move() {
  kubectl create namespace kafka >/dev/null
  kubectl apply -n kafka -f k8s/kafka/apache/kafka-single-node.yaml >/dev/null
  kubectl -n kafka rollout status statefulset/kafka --timeout=300s >/dev/null
  book "Move the log" Check
  book "Move the log" Action
  signs
  # The folder of the records before would be taken for this one's.
  rm -rf "$WORK/book/Kafka-lost"
  book "Kafka lost" Action 4
  until_true 300 "all ready" settled
  book "Move the log" Verification
  is public_key "$public" || fail "the public key changed"
  say "the key lives on another broker, and is refreshed there"
}

do_volumes() {
  book "Larger volumes" Check
  book "Larger volumes" Action
  book "Larger volumes" Verification
  [ "$(k get statefulset $name-signer -o jsonpath='{.spec.volumeClaimTemplates[0].spec.resources.requests.storage}')" = 2Gi ] || fail "the size is the old one"
  signs
  say "the set was made anew with larger volumes, without its pods going"
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
  book "Uninstall" Action 1
  until_true 60 "the key" is public_key "$public"
  [ "$(kept)" = "$before" ] || fail "Secrets or roster changed"
  book "Uninstall" Verification
  signs
  say "uninstalled, and installed again with the same values: the same key signs"
}

do_clear_up() {
  book "Uninstall" Action 2
  [ -n "$(k get pvc -o name)" ] || fail "volumes are gone"
  # The API server goes by what it saw last: only the deletion itself, tried, says whether a guard still stands.
  until_true 60 "the guards to go" kubectl delete namespace "$NAMESPACE" --dry-run=server
  book "Uninstall" Action 3
  kubectl delete namespace kafka --ignore-not-found --timeout=180s >/dev/null
  say "cleared up"
}

# `deleted` before `grow`: the keys of signers that are gone again are in no pod to be had back from.
STEPS=${STEPS:-install test look mistakes deleted upgrade_image grow shrink drain volume refresh rollback compromise operator broker log all_pods uninstall move volumes clear_up}
public=$(cat "$WORK/public" 2>/dev/null || true)
for each in $STEPS; do "do_$each"; done
echo "all of it holds; $((SECONDS - began)) s"
