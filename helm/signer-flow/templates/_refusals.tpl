{{/* What could only go wrong later is refused here, with what to do. `requestPartitions` is that of the topic table. */}}
{{- define "signer-flow.requestPartitions" -}}12{{- end -}}

{{- define "signer-flow.refusals" -}}
{{- $n := int .Values.committee.size -}}
{{- $t := int .Values.committee.threshold -}}
{{- $partitions := int (include "signer-flow.requestPartitions" .) -}}
{{- if lt $t 2 -}}
{{- fail (printf "committee.threshold is %d: one signer alone would hold the key; set it to 2 or more." $t) -}}
{{- end -}}
{{- if gt $t $n -}}
{{- fail (printf "committee.threshold is %d, but there are only %d signers: raise committee.size or lower committee.threshold." $t $n) -}}
{{- end -}}
{{- if gt $n $partitions -}}
{{- fail (printf "committee.size is %d, but the topic of requests has %d partitions, so that %d signers would get none: set it to %d or less." $n $partitions (sub $n $partitions) $partitions) -}}
{{- end -}}
{{- if not (kindIs "invalid" .Values.signer.replicas) -}}
{{- if ne (int .Values.signer.replicas) $n -}}
{{- fail (printf "signer.replicas is %d and committee.size is %d: leave signer.replicas empty, and change committee.size, which shares the key anew." (int .Values.signer.replicas) $n) -}}
{{- end -}}
{{- end -}}
{{- range .Values.provision.replaceSeats -}}
{{- if gt (int .) $n -}}
{{- fail (printf "provision.replaceSeats names seat %d, but there are seats 1 to %d: take it out." (int .) $n) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.provision.enabled -}}
{{- range $name, $value := .Values.provision.existing -}}
{{- if not $value -}}
{{- fail (printf "provision.enabled is false and provision.existing.%s is empty: run `python -m signer_service provision`, store what it makes and name it, or set provision.enabled." $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.provision.replaceSeats -}}
{{- fail "provision.replaceSeats needs provision.enabled: elsewhere run `python -m signer_service provision --replace-seat`." -}}
{{- end -}}
{{- if .Values.provision.keyRecords -}}
{{- fail "provision.keyRecords needs provision.enabled: elsewhere run `python -m signer_service provision --key-records`." -}}
{{- end -}}
{{- else -}}
{{- range $name, $value := .Values.provision.existing -}}
{{- if $value -}}
{{- fail (printf "provision.existing.%s is set and provision.enabled is true: set provision.enabled to false, or take the name out." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "signer-flow.refusalsKafka" . -}}
{{- include "signer-flow.refusalsApi" . -}}
{{- include "signer-flow.refusalsSettings" . -}}
{{- include "signer-flow.refusalsLive" . -}}
{{- end -}}

{{- define "signer-flow.refusalsKafka" -}}
{{- with .Values.kafka -}}
{{- if not (has .mode (list "bundled" "external" "strimzi")) -}}
{{- fail (printf "kafka.mode is %s: set it to bundled, external or strimzi." .mode) -}}
{{- end -}}
{{- if and (eq .mode "external") (not .external.bootstrap) -}}
{{- fail "kafka.mode is external and kafka.external.bootstrap is empty: set it to the brokers, as host:port." -}}
{{- end -}}
{{- if and (ne .mode "external") .external.bootstrap -}}
{{- fail (printf "kafka.external.bootstrap is set and kafka.mode is %s: set kafka.mode to external, or take it out." .mode) -}}
{{- end -}}
{{- if and (eq .mode "strimzi") (not .strimzi.cluster) -}}
{{- fail "kafka.mode is strimzi and kafka.strimzi.cluster is empty: set it to the name of the Kafka object." -}}
{{- end -}}
{{- if and (eq .mode "bundled") .security.existingSecret -}}
{{- fail "kafka.security.existingSecret is set, but the bundled broker asks for no login: set kafka.mode to external or strimzi, or take it out." -}}
{{- end -}}
{{- if and (not .security.existingSecret) (or .security.perPod .security.caSecret) -}}
{{- fail "kafka.security.perPod and kafka.security.caSecret need kafka.security.existingSecret: name the Secret with the options." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "signer-flow.refusalsApi" -}}
{{- with .Values.restApi -}}
{{- if and (eq .auth "tokens") (not .tokensSecret) -}}
{{- fail "restApi.auth is tokens and restApi.tokensSecret is empty: make tokens.toml with `signer-flow token NAME --file tokens.toml`, store it with `kubectl create secret generic NAME --from-file=tokens.toml`, and name it." -}}
{{- end -}}
{{- if and (eq .auth "none") .tokensSecret -}}
{{- fail "restApi.tokensSecret is set, but restApi.auth is none, so that nobody would be asked: set restApi.auth to tokens." -}}
{{- end -}}
{{- if and .ingress.enabled (eq .auth "none") (not .ingress.anonymous) -}}
{{- fail "restApi.ingress.enabled with restApi.auth none lets everybody on its other side sign: set restApi.auth to tokens, or restApi.ingress.anonymous if that is meant." -}}
{{- end -}}
{{- if and (eq .service.type "LoadBalancer") (eq .auth "none") (not .service.anonymous) -}}
{{- fail "restApi.service.type LoadBalancer with restApi.auth none lets everybody who reaches its address sign: set restApi.auth to tokens, or restApi.service.anonymous if that is meant." -}}
{{- end -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- fail "restApi.autoscaling.minReplicas is more than maxReplicas: lower it." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the chart sets itself, and what its mounts, ports and rules are made for, is not set past it. */}}
{{- define "signer-flow.refusalsSettings" -}}
{{- $both := dict "KAFKA_BOOTSTRAP" "kafka.mode" "TOPIC_PREFIX" "kafka.topicPrefix" "KAFKA_SECURITY_FILE" "kafka.security" "KAFKA_EMBEDDED" "kafka.mode" "INDEX" "" "ADMIN_HOST" "" "ADMIN_PORT" "" "SECRETS_DIR" "provision.existing" "ROSTER_FILE" "provision.existing" "OTLP_ENDPOINT" "otlpEndpoint" -}}
{{- $signer := dict "STATE_DIR" "" "IDENTITY_KEY_FILE" "provision.existing" "SEALING_KEY_FILE" "provision.existing" "OPERATOR_PUB_FILE" "provision.existing" "INSECURE_DEV" "" -}}
{{- $api := dict "HOST" "" "PORT" "restApi.service.port" "AUTH" "restApi.auth" "TOKENS_FILE" "restApi.tokensSecret" "TRUSTED_PROXIES" "restApi.trustedProxies" "ALLOWED_HOSTS" "restApi.allowedHosts" "OPERATOR_KEY_FILE" "provision.existing" "EDGE_KEY_FILE" "provision.existing" -}}
{{- if .Values.committee.publicKey }}{{ $_ := set $api "PINNED_KEYS" "committee.publicKey" }}{{ end -}}
{{- range $part, $own := dict "signer" (merge $signer $both) "restApi" (merge $api $both) -}}
{{- range $name, $value := index $.Values $part "settings" -}}
{{- if hasKey $own $name -}}
{{- fail (printf "%s.settings.%s is the chart's own to set: take it out%s." $part $name (get $own $name | empty | ternary "" (printf ", and set %s" (get $own $name)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
