{{/* Name of everything that the release owns: the release's name, with the chart's unless it holds that already. */}}
{{- define "tollgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Name of what is cluster-wide: two releases in two namespaces must not meet. */}}
{{- define "tollgate.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "tollgate.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tollgate.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tollgate.name" .) }}
{{- end }}

{{- define "tollgate.lease" -}}
{{ printf "%s-operator" (include "tollgate.name" .) }}
{{- end }}

{{/* The user that the operator is to the API server. */}}
{{- define "tollgate.user" -}}
{{ printf "system:serviceaccount:%s:%s" .Release.Namespace (include "tollgate.serviceAccount" .) }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
