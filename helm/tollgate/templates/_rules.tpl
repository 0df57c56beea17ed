{{/* What the operator may do in each namespace that it serves. */}}
{{- define "tollgate.namespaceRules" -}}
- apiGroups: [tollgate.dev] # what people ask for; the operator never changes a spec or a label
  resources: [trainingruns, promotionpolicies]
  verbs: [get, list, watch]
- apiGroups: [tollgate.dev] # what it answers
  resources: [trainingruns/status, promotionpolicies/status]
  verbs: [patch]
- apiGroups: [tollgate.dev] # Jobs name their run as owner, which some clusters check by this
  resources: [trainingruns/finalizers]
  verbs: [update]
- apiGroups: [batch] # the attempts: create, stop (patch), delete what never started
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""] # exit codes, last words, nodes; pods are made by the Job controller
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""] # the headless Service by which the pods of a gang find each other
  resources: [services]
  verbs: [get, create]
- apiGroups: [""] # does the claim exist, and may two nodes mount it
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""] # the projection of a stage (server-side apply)
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io] # what `kubectl describe` shows
  resources: [events]
  verbs: [create]
{{- end }}

{{/* What it may do in the whole cluster, whichever namespaces it serves. */}}
{{- define "tollgate.clusterRules" -}}
- apiGroups: [tollgate.dev]
  resources: [computeprofiles]
  verbs: [get, list, watch]
- apiGroups: [""] # the price of the bound node, and whether it answers
  resources: [nodes]
  verbs: [get, list, watch]
{{- end }}
