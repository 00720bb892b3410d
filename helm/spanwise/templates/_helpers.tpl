{{- define "spanwise.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "spanwise.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "spanwise.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "spanwise.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Roles that this mode runs. */}}
{{- define "spanwise.roles" -}}
{{- if eq .Values.mode "single" }}single{{ else }}receiver worker{{ end }}
{{- end }}

{{/* Not empty if the store is in the process, not a ClickHouse server. */}}
{{- define "spanwise.embedded" -}}
{{- if and (eq .Values.mode "single") (not (regexMatch "^https?:" (dig "store" "dsn" "" .Values.config))) }}yes{{ end }}
{{- end }}

{{/* A quantity of memory in bytes. */}}
{{- define "spanwise.bytes" -}}
{{- $units := dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $quantity := toString . -}}
{{- mulf (regexFind "^[0-9.]+" $quantity | float64) (get $units (regexFind "[A-Za-z]+$" $quantity) | default 1.0) | printf "%.0f" -}}
{{- end }}

{{/* Key of the first token that may read metrics, '' if there is none. */}}
{{- define "spanwise.metricsToken" -}}
{{- $found := list -}}
{{- range .Values.auth.apiTokens -}}
{{- if not .tenant }}{{ $found = append $found .key }}{{ end -}}
{{- end -}}
{{- with $found }}{{ first . }}{{ end -}}
{{- end }}

{{/* Name of what KEDA logs in at the brokers with, '' if they ask for nothing. */}}
{{- define "spanwise.kedaAuthentication" -}}
{{- if .Values.worker.keda.authenticationRef -}}
{{ .Values.worker.keda.authenticationRef }}
{{- else if or .Values.kafka.existingSecret .Values.kafka.tls.existingSecret -}}
{{ include "spanwise.fullname" . }}-kafka
{{- end }}
{{- end }}

{{/* Service of the ports that are read from. Takes a list: root, role. */}}
{{- define "spanwise.webService" -}}
{{- $role := index . 1 -}}
{{ include "spanwise.fullname" (index . 0) }}-{{ $role }}{{ if ne $role "worker" }}-web{{ end }}
{{- end }}

{{/* Ports of a Service. Takes a list: root, their names. */}}
{{- define "spanwise.servicePorts" -}}
{{- $ports := (index . 0).Values.ports -}}
{{- range $name := rest . }}
{{- $port := index $ports $name }}
- name: {{ $name }}
  port: {{ $port.servicePort }}
  targetPort: {{ $name }}
  protocol: TCP
  {{- with $port.appProtocol }}
  appProtocol: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Values of a role: those of all pods, and over them its own. Takes a list: root, role. */}}
{{- define "spanwise.values" -}}
{{- $root := index . 0 -}}
{{- $shared := pick $root.Values "podAnnotations" "podLabels" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" "podSecurityContext" "securityContext" "extraEnvs" "extraEnvsFrom" "extraVolumes" "extraVolumeMounts" "extraContainers" "initContainers" "preStopSeconds" "terminationGracePeriodSeconds" "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- mergeOverwrite (deepCopy $shared) (deepCopy (index $root.Values (index . 1))) | toYaml }}
{{- end }}

{{- define "spanwise.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "spanwise.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "spanwise.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: spanwise
{{ include "spanwise.selector" . }}
{{- with $root.Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "spanwise.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "spanwise.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "spanwise.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* Files of a mounted Secret as options `ca`, `cert` and `key`. Takes a list: values, folder. */}}
{{- define "spanwise.tls" -}}
{{- $tls := index . 0 -}}
{{- $folder := index . 1 -}}
{{- if $tls.existingSecret -}}
{{- with $tls.caKey }}
ca: /etc/spanwise/{{ $folder }}/{{ . }}
{{- end }}
{{- if $tls.certKey }}
cert: /etc/spanwise/{{ $folder }}/{{ $tls.certKey }}
key: /etc/spanwise/{{ $folder }}/{{ $tls.keyKey }}
{{- end }}
{{- end }}
{{- end }}

{{/* The program's options: yours over those that follow from the rest of the values. */}}
{{- define "spanwise.config" -}}
{{- $values := .Values -}}
{{- $config := deepCopy $values.config -}}
{{- if $values.auth.existingSecret -}}
{{- $receiver := default dict $config.receiver -}}
{{- $senders := default list $receiver.tokens -}}
{{- range $values.auth.otlpTokens -}}
{{- $senders = append $senders (dict "file" (printf "/etc/spanwise/auth/%s" .key) "tenant" .tenant) -}}
{{- end -}}
{{- $_ := set $config "receiver" (set $receiver "tokens" $senders) -}}
{{- $web := default dict $config.web -}}
{{- $readers := default list $web.tokens -}}
{{- range $values.auth.apiTokens -}}
{{- $readers = append $readers (merge (dict "file" (printf "/etc/spanwise/auth/%s" .key)) (omit . "key")) -}}
{{- end -}}
{{- $_ := set $config "web" (set $web "tokens" $readers) -}}
{{- end -}}
{{- if $values.tls.existingSecret -}}
{{- $tls := dict "cert" "/etc/spanwise/tls/tls.crt" "key" "/etc/spanwise/tls/tls.key" -}}
{{- with $values.tls.clientCaKey -}}
{{- $_ := set $tls "client_ca" (printf "/etc/spanwise/tls/%s" .) -}}
{{- end -}}
{{- $receiver := default dict $config.receiver -}}
{{- $_ := set $config "receiver" (mergeOverwrite (dict "tls" $tls) $receiver) -}}
{{- end -}}
{{- $store := default dict $config.store -}}
{{- if $values.clickhouse.existingSecret -}}
{{- $_ := set $store "password_file" (printf "/etc/spanwise/clickhouse/%s" $values.clickhouse.passwordKey) -}}
{{- end -}}
{{- with include "spanwise.tls" (list $values.clickhouse.tls "clickhouse-tls") | fromYaml -}}
{{- $_ := set $store "tls" . -}}
{{- end -}}
{{- if and $values.migrations.user (eq $values.mode "fleet") -}}
{{- $_ := set $store "migrate" false -}}
{{- end -}}
{{- if $store -}}
{{- $_ := set $config "store" $store -}}
{{- end -}}
{{- if eq $values.mode "fleet" -}}
{{- $journal := mergeOverwrite (dict "session_timeout_s" 30) (default dict $config.journal) -}}
{{- if $values.presets.spool.enabled -}}
{{- $journal = mergeOverwrite (dict "spool" (dict "kind" "sqlite")) $journal -}}
{{- end -}}
{{- if $values.kafka.existingSecret -}}
{{- $_ := set $journal "sasl" (merge (dict "password_file" (printf "/etc/spanwise/kafka/%s" $values.kafka.passwordKey)) (default dict $journal.sasl)) -}}
{{- end -}}
{{- with include "spanwise.tls" (list $values.kafka.tls "kafka-tls") | fromYaml -}}
{{- $_ := set $journal "tls" . -}}
{{- end -}}
{{- $_ := set $config "journal" $journal -}}
{{- end -}}
{{- toYaml $config }}
{{- end }}

{{/* What cannot work is refused here, with what to do about it. */}}
{{- define "spanwise.checked" -}}
{{- $values := .Values -}}
{{- if not (has $values.mode (list "single" "fleet")) -}}
{{- fail "mode must be set: `single` is one pod with everything, `fleet` is receivers and workers around Kafka and ClickHouse" -}}
{{- end -}}
{{- $config := include "spanwise.config" . | fromYaml -}}
{{- $receiver := default dict $config.receiver -}}
{{- $mutual := dig "tls" "client_ca" "" $receiver -}}
{{- if not (or $receiver.tokens $mutual $receiver.insecure) -}}
{{- fail "anybody could send: set auth.existingSecret, or tls.clientCaKey, or allow it with config.receiver.insecure=true" -}}
{{- end -}}
{{- if not (or (dig "web" "tokens" "" $config) (dig "web" "insecure" "" $config)) -}}
{{- fail "anybody could read everything: set auth.existingSecret, or allow it with config.web.insecure=true" -}}
{{- end -}}
{{- if and (include "spanwise.embedded" .) (not (or (dig "web" "tokens" "" $config) (dig "clickhouse" "insecure" "" $config))) -}}
{{- fail "anybody could read everything as from a ClickHouse: set auth.existingSecret, or allow it with config.clickhouse.insecure=true" -}}
{{- end -}}
{{- range $role := splitList " " (include "spanwise.roles" .) -}}
{{- $own := include "spanwise.values" (list $ $role) | fromYaml -}}
{{- $drain := add 25 (ternary 0 $own.preStopSeconds (eq $role "worker")) -}}
{{- if lt (int $own.terminationGracePeriodSeconds) (int $drain) -}}
{{- fail (printf "terminationGracePeriodSeconds of %s (%d) must be %d at least: preStopSeconds and the 25 s that ending may take" $role (int $own.terminationGracePeriodSeconds) (int $drain)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^https?://[^/@]+:[^/@]+@" (dig "store" "dsn" "" $config) -}}
{{- fail "config.store.dsn holds a password and would be readable in a ConfigMap: put it into a Secret, clickhouse.existingSecret" -}}
{{- end -}}
{{- with dig "resources" "limits" "memory" "" $values.single -}}
{{- $engine := dig "store" "embedded_memory_bytes" 4294967296.0 $config | float64 -}}
{{- if and (include "spanwise.embedded" $) (lt (include "spanwise.bytes" . | float64) (addf $engine 1073741824.0)) -}}
{{- fail (printf "single.resources.limits.memory (%s) must be 1 GiB at least above config.store.embedded_memory_bytes (%.0f): the engine may use all of that, and the rest of the program needs some too" . $engine) -}}
{{- end -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled $values.auth.existingSecret (not (include "spanwise.metricsToken" .)) -}}
{{- fail "Prometheus needs a token of auth.apiTokens that is not bound to a tenant: metrics are about all of them" -}}
{{- end -}}
{{- if eq $values.mode "fleet" -}}
{{- if not (dig "store" "dsn" "" $config) -}}
{{- fail "a fleet needs a ClickHouse that all workers share: set config.store.dsn" -}}
{{- end -}}
{{- if ne (empty $values.migrations.user) (empty $values.migrations.existingSecret) -}}
{{- fail "migrations.user and migrations.existingSecret (with the key `password`) belong together" -}}
{{- end -}}
{{- if ne (dig "journal" "kind" "" $config) "kafka" -}}
{{- fail "a fleet needs Kafka: set config.journal.kind=kafka and config.journal.servers" -}}
{{- end -}}
{{- if not (dig "journal" "servers" "" $config) -}}
{{- fail "a fleet needs the addresses of its brokers: set config.journal.servers" -}}
{{- end -}}
{{- if and $values.presets.spool.enabled $values.receiver.autoscaling.enabled -}}
{{- fail "a receiver that is scaled away takes what is in its spool out of reach: use presets.spool or receiver.autoscaling, not both" -}}
{{- end -}}
{{- if and $config.journal.spool (not $values.presets.spool.enabled) -}}
{{- fail "config.journal.spool needs a volume that comes back with its receiver: set presets.spool.enabled" -}}
{{- end -}}
{{- if and $values.kafka.existingSecret (not (dig "journal" "sasl" "username" "" $config)) -}}
{{- fail "kafka.existingSecret holds the password of a user: set config.journal.sasl.username" -}}
{{- end -}}
{{- if and $values.worker.keda.enabled (dig "journal" "sasl" "" $config) (not $values.kafka.existingSecret) (not $values.worker.keda.authenticationRef) -}}
{{- fail "KEDA asks the brokers too: set kafka.existingSecret, or worker.keda.authenticationRef with a TriggerAuthentication of yours" -}}
{{- end -}}
{{- if and $values.migrations.createTopics (not $values.migrations.enabled) -}}
{{- fail "migrations.createTopics is done by the Job of migrations.enabled: switch that on, or run `spanwise topics create` yourself" -}}
{{- end -}}
{{- $partitions := dig "journal" "topics" "partitions" 12 $config | int -}}
{{- $workers := ternary $values.worker.keda.maxReplicas $values.worker.replicaCount $values.worker.keda.enabled | int -}}
{{- if gt $workers $partitions -}}
{{- fail (printf "%d workers cannot share %d partitions: raise config.journal.topics.partitions, or run fewer" $workers $partitions) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Secrets that the configuration names files of, by the folder they are mounted at: {folder: secret}. */}}
{{- define "spanwise.secrets" -}}
{{- $values := .Values -}}
{{- $found := dict "auth" $values.auth.existingSecret "tls" $values.tls.existingSecret "clickhouse" $values.clickhouse.existingSecret "clickhouse-tls" $values.clickhouse.tls.existingSecret -}}
{{- if eq $values.mode "fleet" -}}
{{- $found = merge $found (dict "kafka" $values.kafka.existingSecret "kafka-tls" $values.kafka.tls.existingSecret) -}}
{{- end -}}
{{- range $folder, $secret := $found }}
{{- if $secret }}
{{ $folder }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end }}

{{- define "spanwise.secretVolumes" -}}
{{- range $folder, $secret := include "spanwise.secrets" . | fromYaml }}
- name: {{ $folder }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "spanwise.secretMounts" -}}
{{- range $folder, $_ := include "spanwise.secrets" . | fromYaml }}
- {name: {{ $folder }}, mountPath: /etc/spanwise/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Variables of every container that runs the program. They win over the file, so nothing here repeats an option of it. */}}
{{- define "spanwise.environment" -}}
{{- $ports := .Values.ports -}}
- {name: SPANWISE_CONFIG, value: /etc/spanwise/config/spanwise.yaml}
- {name: SPANWISE_DATA_DIR, value: /var/lib/spanwise}
- {name: SPANWISE_RECEIVER__GRPC, value: {{ printf "%s:%d" .Values.bindAddress (int $ports.otlp.containerPort) | quote }}}
- {name: SPANWISE_RECEIVER__HTTP, value: {{ printf "%s:%d" .Values.bindAddress (int (index $ports "otlp-http").containerPort) | quote }}}
- {name: SPANWISE_WEB__ADDRESS, value: {{ printf "%s:%d" .Values.bindAddress (int $ports.web.containerPort) | quote }}}
{{- if include "spanwise.embedded" . }}
- {name: SPANWISE_CLICKHOUSE__ADDRESS, value: {{ printf "%s:%d" .Values.bindAddress (int $ports.clickhouse.containerPort) | quote }}}
{{- else }}
- {name: SPANWISE_CLICKHOUSE__ADDRESS, value: "off"}
{{- end }}
{{- end }}

{{- define "spanwise.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "spanwise.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* Pod template of a role. Takes a list: root, role. */}}
{{- define "spanwise.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $values := include "spanwise.values" . | fromYaml -}}
{{- $ports := $root.Values.ports -}}
metadata:
  annotations:
    checksum/config: {{ include "spanwise.config" $root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "spanwise.selector" . | nindent 4 }}
    {{- with $root.Values.additionalLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "spanwise.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # Variables of services would be mistaken for options.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  securityContext: {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $name := list "nodeSelector" "tolerations" "affinity" }}
  {{- with index $values $name }}
  {{ $name }}: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- if $values.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml $values.topologySpreadConstraints | nindent 4 }}
  {{- else if and $root.Values.presets.topologySpread.enabled (ne $role "single") }}
  topologySpreadConstraints: {{- include "spanwise.spread" . | trim | nindent 4 }}
  {{- end }}
  {{- with $values.initContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: spanwise
      image: {{ include "spanwise.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ get (dict "single" "up" "receiver" "receive" "worker" "work") $role }}]
      securityContext: {{- toYaml $values.securityContext | nindent 8 }}
      env:
        {{- include "spanwise.environment" $root | nindent 8 }}
        {{- if eq $role "worker" }}
        # The same name after a restart: the partitions wait for it.
        - {name: SPANWISE_JOURNAL__MEMBER, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        {{- end }}
        {{- with $values.extraEnvs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.extraEnvsFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if ne $role "worker" }}
        - {name: otlp, containerPort: {{ $ports.otlp.containerPort }}}
        - {name: otlp-http, containerPort: {{ (index $ports "otlp-http").containerPort }}}
        {{- end }}
        - {name: web, containerPort: {{ $ports.web.containerPort }}}
        {{- if and (eq $role "single") (include "spanwise.embedded" $root) }}
        - {name: clickhouse, containerPort: {{ $ports.clickhouse.containerPort }}}
        {{- end }}
      {{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" }}
      {{- with index $values $name }}
      {{ $name }}: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- if and (ne $role "worker") (gt (int $values.preStopSeconds) 0) }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $values.preStopSeconds }}}
      {{- end }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/spanwise/config, readOnly: true}
        - {name: data, mountPath: /var/lib/spanwise}
        - {name: tmp, mountPath: /tmp}
        {{- with include "spanwise.secretMounts" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "spanwise.fullname" $root }}}
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- if not (or (eq $role "single") (and (eq $role "receiver") $root.Values.presets.spool.enabled)) }}
    - name: data
      emptyDir: {sizeLimit: 1Gi}
    {{- end }}
    {{- with include "spanwise.secretVolumes" $root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "spanwise.claim" -}}
- metadata:
    name: data
    {{- with .annotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes: {{ default (list "ReadWriteOnce") .accessModes | toJson }}
    {{- with .storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests: {storage: {{ .size }}}
{{- end }}
