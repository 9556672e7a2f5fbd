{{/* Whether a module is on: not empty. */}}
{{- define "trimtab.hasLayer7" -}}
{{- if ne (get (default dict .Values.config.metaprotocol) "enabled" | toString) "false" -}}true{{- end -}}
{{- end -}}

{{/* What is watched, in all namespaces. */}}
{{- define "trimtab.rules.read" -}}
{{- $layer7 := include "trimtab.hasLayer7" . -}}
{{- $lazyload := include "trimtab.hasLazyload" . -}}
# User intent, in both published groups.
- apiGroups: [microservice.slime.io, microservice.netease.com]
  resources: [smartlimiters]
  verbs: [list, watch]
# The targets of limiters and their pods.
- apiGroups: [""]
  resources: [services, pods]
  verbs: [list, watch]
# Labels that say which pods are in ambient mode, which services are fenced, and which namespaces take no objects of others.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
# Subsets, targets outside of the cluster and virtual hosts; generated objects. Routes: where a dependency leads, and
# generated objects that make gateways listen.
- apiGroups: [networking.istio.io]
  resources: [destinationrules, serviceentries, virtualservices, envoyfilters]
  verbs: [list, watch]
{{- if or $layer7 $lazyload }}
# Where services are.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}
{{- if or $layer7 $lazyload }}
{{- with (include "trimtab.config" . | fromYaml).mesh.configMap }}
# Who sees objects without exportTo, access logs and tracing, as Istio's MeshConfig has them.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ base . }}]
  verbs: [list, watch]
{{- end }}
{{- end }}
{{- if $layer7 }}
# Layer-7 protocols.
- apiGroups: [metaprotocol.aeraki.io]
  resources: [metarouters, applicationprotocols]
  verbs: [list, watch]
- apiGroups: [redis.aeraki.io]
  resources: [redisservices, redisdestinations]
  verbs: [list, watch]
- apiGroups: [dubbo.aeraki.io]
  resources: [dubboauthorizationpolicies]
  verbs: [list, watch]
- apiGroups: [networking.istio.io]
  resources: [gateways]
  verbs: [list, watch]
# Its objects are of no namespace.
- apiGroups: [metaprotocol.aeraki.io]
  resources: [applicationprotocols/status]
  verbs: [patch]
{{- end }}
{{- if $lazyload }}
# Lazy scoping. Users' own Sidecars are seen, so that none is written beside them.
- apiGroups: [microservice.slime.io]
  resources: [servicefences]
  verbs: [list, watch]
- apiGroups: [networking.istio.io]
  resources: [sidecars]
  verbs: [list, watch]
# Routes of Services, where the Gateway API is installed.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [list, watch]
# Who may call whom: a hint before the first call, and first calls that would be refused.
- apiGroups: [security.istio.io]
  resources: [authorizationpolicies]
  verbs: [list, watch]
# Servers that proxies ask for filters and telemetry, and that a scope must not lack.
- apiGroups: [extensions.istio.io]
  resources: [wasmplugins, trafficextensions]
  verbs: [list, watch]
- apiGroups: [telemetry.istio.io]
  resources: [telemetries]
  verbs: [list, watch]
{{- if get (default dict .Values.config.lazyload) "remoteJwks" }}
# config.lazyload.remoteJwks: servers of the keys of JWTs.
- apiGroups: [security.istio.io]
  resources: [requestauthentications]
  verbs: [list, watch]
{{- end }}
{{- end }}
{{- if include "trimtab.hasTokens" . }}
# config.xds.tokens: whose ServiceAccount token a proxy shows.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}
{{- if hasKey (default dict .Values.config.metrics) "metricsServer" }}
# config.metrics.metricsServer: use of CPU and memory.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
{{- end }}
{{- end -}}

{{/* What is written, in all namespaces or in those of rbac.writeNamespaces. */}}
{{- define "trimtab.rules.write" -}}
{{- $layer7 := include "trimtab.hasLayer7" . -}}
{{- $lazyload := include "trimtab.hasLazyload" . -}}
# Decisions and reasons. Users' specs are never written.
- apiGroups: [microservice.slime.io, microservice.netease.com]
  resources: [smartlimiters/status]
  verbs: [patch]
# The generated objects. Server-side apply is a patch, of an object that is not there also a create; an update takes
# away fields that somebody else added by hand.
- apiGroups: [networking.istio.io]
  resources: [envoyfilters]
  verbs: [create, patch, update, delete]
{{- if $layer7 }}
- apiGroups: [metaprotocol.aeraki.io]
  resources: [metarouters/status]
  verbs: [patch]
- apiGroups: [redis.aeraki.io]
  resources: [redisservices/status, redisdestinations/status]
  verbs: [patch]
- apiGroups: [dubbo.aeraki.io]
  resources: [dubboauthorizationpolicies/status]
  verbs: [patch]
{{- end }}
{{- if or $layer7 $lazyload }}
# What is refused of VirtualServices, Services and ServiceEntries, and the steps of fences of mode Auto.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- if $layer7 }}
# Generated objects that make gateways listen.
- apiGroups: [networking.istio.io]
  resources: [virtualservices]
  verbs: [create, patch, update, delete]
{{- if get (default dict .Values.config.metaprotocol) "vips" }}
# config.metaprotocol.vips: addresses of ServiceEntries that have none.
- apiGroups: [networking.istio.io]
  resources: [serviceentries]
  verbs: [patch]
{{- end }}
{{- end }}
{{- if $lazyload }}
# The scopes, and the fences that Trimtab makes by labels.
- apiGroups: [networking.istio.io]
  resources: [sidecars]
  verbs: [create, patch, update, delete]
- apiGroups: [microservice.slime.io]
  resources: [servicefences]
  verbs: [create, patch, delete]
- apiGroups: [microservice.slime.io]
  resources: [servicefences/status]
  verbs: [patch]
{{- if or .Values.fallback.enabled .Values.fallback.external }}
# The HTTP ports of the mesh, on the Service of the fallback.
- apiGroups: [""]
  resources: [services]
  resourceNames: [global-sidecar]
  verbs: [patch]
{{- end }}
{{- end }}
{{- if .Values.rbac.ownerReferencesPermissionEnforcement }}
# Generated objects block the deletion of their owner; the admission plugin asks for this right then.
- apiGroups: [microservice.slime.io, microservice.netease.com]
  resources: [smartlimiters/finalizers]
  verbs: [update]
{{- if $lazyload }}
- apiGroups: [microservice.slime.io]
  resources: [servicefences/finalizers]
  verbs: [update]
{{- end }}
{{- end }}
{{- end -}}

{{/* config.metaprotocol.readSecrets: passwords of Redis, by name. */}}
{{- define "trimtab.rules.secrets" -}}
{{- $module := default dict .Values.config.metaprotocol -}}
{{- if and (include "trimtab.hasLayer7" .) (get $module "readSecrets") -}}
# config.metaprotocol.readSecrets: passwords of Redis, by name.
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.secrets.names }}
  resourceNames: {{ uniq . | sortAlpha | toJson }}
  {{- end }}
  verbs: [get]
{{- end -}}
{{- end -}}

{{/* config.xds.tokens: the authority of the xDS server, which the operator makes and renews, in its namespace. */}}
{{- define "trimtab.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ (include "trimtab.config" . | fromYaml).leaderElection.name }}]
  verbs: [get, list, watch, update]
# Kubernetes cannot limit a creation to a name.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
{{- end -}}

{{/* The label of the leader's pod, by which its Service finds it. */}}
{{- define "trimtab.rules.pods" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end -}}

{{- define "trimtab.rules.xds" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ (include "trimtab.config" . | fromYaml).xds.tokens.authority.name }}]
  verbs: [get, update]
# Kubernetes cannot limit a creation to a name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end -}}
