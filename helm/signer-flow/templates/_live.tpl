{{/* What the cluster has of this release. All of it is empty where helm asks no cluster (helm template, GitOps): then
nothing here refuses, and the rules are the reader's own to keep. */}}

{{/* A StatefulSet's object as JSON: (list . "signer"). */}}
{{- define "signer-flow.live" -}}
{{- $root := index . 0 -}}
{{- lookup "apps/v1" "StatefulSet" $root.Release.Namespace (printf "%s-%s" (include "signer-flow.fullname" $root) (index . 1)) | toJson -}}
{{- end -}}

{{/* Whether a cluster is asked, and has no signers: an install that never came so far. */}}
{{- define "signer-flow.neverCameUp" -}}
{{- if and (lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt") (not (include "signer-flow.live" (list . "signer") | fromJson)) }}true{{ end -}}
{{- end -}}

{{/* How many signers there are to be now; 0: not known. */}}
{{- define "signer-flow.liveSigners" -}}
{{- $live := include "signer-flow.live" (list . "signer") | fromJson -}}
{{- if $live }}{{ int $live.spec.replicas }}{{ else }}0{{ end -}}
{{- end -}}

{{- define "signer-flow.refusalsLive" -}}
{{- $root := . -}}
{{- $name := include "signer-flow.fullname" . -}}
{{- range (lookup "apps/v1" "StatefulSet" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/name" | toString) "signer-flow") (eq (get $labels "app.kubernetes.io/instance" | toString) $root.Release.Name) -}}
{{- $part := get $labels "app.kubernetes.io/component" -}}
{{- if ne .metadata.name (printf "%s-%s" $name $part) -}}
{{- fail (printf "what is installed is called %s, and with these values it would be %s-%s, which has no key and no volume: put fullnameOverride back, or install it beside this one." .metadata.name $name $part) -}}
{{- end -}}
{{- if eq $part "signer" -}}
{{- include "signer-flow.refusalsMoved" (list $root .) -}}
{{- with $root.Values.signer.storage -}}
{{- include "signer-flow.refusalsVolume" (list $root $labels "signer.storage" .size .className .accessMode) -}}
{{- end -}}
{{- else if eq $part "rest-api" -}}
{{- include "signer-flow.refusalsOpened" (list $root .) -}}
{{- else if and (eq $part "kafka") (eq $root.Values.kafka.mode "bundled") -}}
{{- with $root.Values.kafka.bundled -}}
{{- include "signer-flow.refusalsVolume" (list $root $labels "kafka.bundled" .size .className "ReadWriteOnce") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whoever upgrades without the release's values opens what they closed: (list . StatefulSet of the API pods). */}}
{{- define "signer-flow.refusalsOpened" -}}
{{- $root := index . 0 -}}
{{- range (first (index . 1).spec.template.spec.containers).env -}}
{{- if and (eq .name "SIGNER_REST_API_AUTH") (eq (.value | default "") "tokens") (eq $root.Values.restApi.auth "none") (not $root.Values.restApi.service.anonymous) -}}
{{- fail "the API asks for tokens, and with these values it would let everybody sign: add --reset-then-reuse-values, or the values that it was installed with; if it is meant, set restApi.service.anonymous." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A running key belongs to the log that it was made in: (list . StatefulSet of the signers). */}}
{{- define "signer-flow.refusalsMoved" -}}
{{- $root := index . 0 -}}
{{- $env := dict -}}
{{- range (first (index . 1).spec.template.spec.containers).env -}}
{{- $_ := set $env .name (.value | default "") -}}
{{- end -}}
{{- $was := get $env "SIGNER_SERVICE_KAFKA_BOOTSTRAP" -}}
{{- $before := get $env "SIGNER_SERVICE_TOPIC_PREFIX" -}}
{{- $is := include "signer-flow.bootstrap" $root -}}
{{- $common := false -}}
{{- range splitList "," $is -}}{{- if has . (splitList "," $was) }}{{ $common = true }}{{ end -}}{{- end -}}
{{- if ne $before $root.Values.kafka.topicPrefix -}}
{{- fail (printf "the key was made under kafka.topicPrefix %q, and with these values it would be looked for under %q, where nobody believes it: put it back." $before $root.Values.kafka.topicPrefix) -}}
{{- end -}}
{{- if and (not $common) (ne $root.Values.kafka.movedFrom $was) -}}
{{- fail (printf "the signers' log is at %s, and with these values they would look for it at %s: there they sign on, and no share is ever healed or refreshed. Put kafka.mode and its address back. If the log is moved on purpose (k8s/runbooks.md, Move the log), the same brokers have another address, or no key was ever made there: set kafka.movedFrom to %s." $was $is $was) -}}
{{- end -}}
{{- end -}}

{{/* Kubernetes changes no volume of a StatefulSet, and says so when half of an upgrade is done: (list . LABELS "signer.storage" SIZE CLASS MODE). */}}
{{- define "signer-flow.refusalsVolume" -}}
{{- $root := index . 0 -}}
{{- $part := get (index . 1) "app.kubernetes.io/component" -}}
{{- $set := include "signer-flow.live" (list $root $part) | fromJson -}}
{{- $is := (first $set.spec.volumeClaimTemplates).spec -}}
{{- $differs := list -}}
{{- if ne (include "signer-flow.bytes" $is.resources.requests.storage) (include "signer-flow.bytes" (index . 3)) -}}
{{- $differs = append $differs (printf "size %s instead of %s" (index . 3) $is.resources.requests.storage) -}}
{{- end -}}
{{- if ne ($is.storageClassName | default "") (index . 4) -}}
{{- $differs = append $differs (printf "className %q instead of %q" (index . 4) ($is.storageClassName | default "")) -}}
{{- end -}}
{{- if ne (first $is.accessModes) (index . 5) -}}
{{- $differs = append $differs (printf "accessMode %s instead of %s" (index . 5) (first $is.accessModes)) -}}
{{- end -}}
{{- if $differs -}}
{{- fail (printf "%s: %s, which Kubernetes cannot change in %s: put it back; or, so that volumes made from now on are so, take away the set without its pods, and upgrade at once: kubectl -n %s delete statefulset %s --cascade=orphan" (index . 2) (join ", " $differs) $set.metadata.name $root.Release.Namespace $set.metadata.name) -}}
{{- end -}}
{{- end -}}

{{/* A quantity in bytes: Kubernetes keeps 1024Mi as 1Gi. */}}
{{- define "signer-flow.bytes" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- if hasKey $units $unit }}{{ printf "%.0f" (mulf (float64 $number) (float64 (get $units $unit))) }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
