{{- define "selfimprove.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "selfimprove.fullname" -}}
{{- $name := include "selfimprove.name" . -}}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $own .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Of the operator's pod alone: the pod of `helm test` has another component. */}}
{{- define "selfimprove.selector" -}}
app.kubernetes.io/name: {{ include "selfimprove.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* managed-by is Helm here; the operator looks for its children by `selfimprove`. */}}
{{- define "selfimprove.labels" -}}
{{ include "selfimprove.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (dict "root" $ "role" NAME "given" REFERENCE): the given reference, else the chart's. */}}
{{- define "selfimprove.image" -}}
{{- $image := .root.Values.image -}}
{{- default (printf "%s/selfimprove-%s:%s" $image.registry .role $image.tag) .given }}
{{- end }}

{{- define "selfimprove.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "selfimprove.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{/* What the operator may do, the same in a ClusterRole and in Roles. */}}
{{- define "selfimprove.rules" -}}
- apiGroups: [selfimprove.dev]
  resources: [selfimproveruns]
  verbs: [get, list, watch, patch, delete]     # delete: ttlSecondsAfterFinished
- apiGroups: [selfimprove.dev]
  resources: [selfimproveruns/status]
  verbs: [get, patch]
- apiGroups: [selfimprove.dev]
  resources: [selfimproveruns/finalizers]
  verbs: [update]                              # owner references that block the owner's deletion
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create]
{{- end }}

{{/* The operator's settings file. What is empty is left out: the operator has its own defaults. */}}
{{- define "selfimprove.settings" -}}
{{- $pods := dict -}}
{{- range $role, $given := .Values.pods }}
{{- $image := include "selfimprove.image" (dict "root" $ "role" $role "given" $given.image) }}
{{- $policy := default $.Values.image.pullPolicy $given.imagePullPolicy }}
{{- $_ := set $pods $role (merge (dict "image" $image "imagePullPolicy" $policy) $given) }}
{{- end }}
{{- $storage := dict }}
{{- range $key, $value := .Values.storage }}{{ if $value }}{{ $_ := set $storage $key $value }}{{ end }}{{ end }}
{{- dict
  "engine" .Values.engine
  "storage" $storage
  "pods" $pods
  "watchNamespaces" .Values.watchNamespaces
  "networkPolicy" .Values.networkPolicy.runs
  "logLevel" .Values.operator.logLevel
  | toYaml }}
{{- end }}
