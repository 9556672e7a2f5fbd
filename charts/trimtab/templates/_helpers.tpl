{{- define "trimtab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of all objects: the release, and the chart unless the release is named after it. */}}
{{- define "trimtab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "trimtab.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trimtab.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trimtab.selector" -}}
app.kubernetes.io/name: {{ include "trimtab.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of all objects. Users' labels cannot replace the chart's own. */}}
{{- define "trimtab.labels" -}}
{{- $own := include "trimtab.selector" . | fromYaml -}}
{{- $own = merge $own (dict
      "app.kubernetes.io/version" .Chart.AppVersion
      "app.kubernetes.io/managed-by" .Release.Service
      "app.kubernetes.io/part-of" "trimtab"
      "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
    ) .Values.commonLabels -}}
{{- toYaml $own -}}
{{- end -}}

{{- define "trimtab.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trimtab.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create to true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "trimtab.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The operator's configuration: the chart's defaults, and the user's values over them. */}}
{{- define "trimtab.config" -}}
{{- $host := printf "%s.%s.svc.%s" (include "trimtab.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- $config := dict
      "http" (dict "address" "0.0.0.0:8080")
      "mesh" (dict "domain" .Values.clusterDomain "configMap" "istio-system/istio")
      "xds" (dict "address" "0.0.0.0:15010" "advertise" (printf "%s:%v" $host .Values.service.ports.xds)) -}}
{{- if include "trimtab.hasElection" . -}}
{{- $_ := set $config "leaderElection" (merge (dict
      "enabled" true
      "namespace" .Release.Namespace
      "name" (include "trimtab.fullname" .)) .Values.leaderElection) -}}
{{- $_ := set $config.xds "maxConnectionAge" "30m" -}}
{{- end -}}
{{- if include "trimtab.hasTokens" . -}}
{{- $authority := dict "namespace" .Release.Namespace "name" (printf "%s-xds-authority" (include "trimtab.fullname" .)) -}}
{{- $_ := set $config.xds "tokens" (dict "authority" $authority) -}}
{{- end -}}
{{- if include "trimtab.hasLazyload" . -}}
{{- $_ := set $config "lazyload" (dict
      "namespace" .Release.Namespace
      "learn" (dict "accessLog" (dict "address" "0.0.0.0:8082"))
      "fallback" (dict "tcp" .Values.fallback.tcp)) -}}
{{- end -}}
{{- if include "trimtab.hasMds" . -}}
{{- $_ := set $config "metrics" (dict "mds" (dict "address" "0.0.0.0:8084")) -}}
{{- end -}}
{{- if .Values.meshCertificate.enabled -}}
{{- $istiod := dict
      "address" .Values.meshCertificate.istiod
      "rootFile" "/var/run/secrets/istio/root-cert.pem"
      "tokenFile" "/var/run/secrets/tokens/istio-token" -}}
{{- with .Values.meshCertificate.serverName -}}
{{- $_ := set $istiod "serverName" . -}}
{{- end -}}
{{- $_ := set $config.mesh "certificate" (dict "istiod" $istiod) -}}
{{- if include "trimtab.hasLazyload" . -}}
{{- $_ := set $config.lazyload.learn.accessLog "security" "Mesh" -}}
{{- end -}}
{{- if include "trimtab.hasMds" . -}}
{{- $_ := set $config.metrics.mds "security" "Mesh" -}}
{{- end -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $config.xds "tls" (dict
      "certificate" "/etc/trimtab-tls/tls.crt"
      "key" "/etc/trimtab-tls/tls.key"
      "clientCa" "/etc/trimtab-tls/ca.crt"
      "trustDomains" .Values.tls.trustDomains) -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* Not empty when one of the replicas is elected to write. */}}
{{- define "trimtab.hasElection" -}}
{{- $enabled := get (default dict .Values.config.leaderElection) "enabled" | toString -}}
{{- $many := gt (int .Values.replicaCount) 1 -}}
{{- if and $many (eq $enabled "false") -}}
{{- fail "replicaCount: with more than one replica, all would write: leave config.leaderElection.enabled out" -}}
{{- end -}}
{{- if or $many (eq $enabled "true") -}}true{{- end -}}
{{- end -}}

{{/* Name of the Service that leads to the leader. */}}
{{- define "trimtab.leaderService" -}}
{{- include "trimtab.fullname" . }}-leader
{{- end -}}

{{/* Not empty unless the xDS server has certificates of files, or is plain: proxies show their ServiceAccount tokens. */}}
{{- define "trimtab.hasTokens" -}}
{{- $xds := default dict .Values.config.xds -}}
{{- if not (or .Values.tls.secretName (get $xds "tls") (get $xds "plaintext")) -}}true{{- end -}}
{{- end -}}

{{/* Not empty when pushed metrics are configured, also with `mds: {}`. */}}
{{- define "trimtab.hasMds" -}}
{{- if hasKey (default dict .Values.config.metrics) "mds" -}}true{{- end -}}
{{- end -}}

{{/* Not empty unless the lazyload module is switched off. */}}
{{- define "trimtab.hasLazyload" -}}
{{- if ne (get (default dict .Values.config.lazyload) "enabled" | toString) "false" -}}true{{- end -}}
{{- end -}}

{{/* Container ports by name, from the configuration. */}}
{{- define "trimtab.ports" -}}
{{- $config := include "trimtab.config" . | fromYaml -}}
http: {{ $config.http.address | regexFind "[0-9]+$" }}
xds: {{ $config.xds.address | regexFind "[0-9]+$" }}
{{- if include "trimtab.hasMds" . }}
mds: {{ $config.metrics.mds.address | regexFind "[0-9]+$" }}
{{- end }}
{{- if include "trimtab.hasLazyload" . }}
accessLogs: {{ $config.lazyload.learn.accessLog.address | regexFind "[0-9]+$" }}
{{- end }}
{{- end -}}

{{/*
Fails when the cluster lacks a kind: (list . VALUE KIND-WITH-VERSION REMEDY). Only a cluster that was asked names its kinds, as
`helm install` and `helm upgrade` do; `helm template` knows none of any cluster, and renders.
*/}}
{{- define "trimtab.needs" -}}
{{- $versions := (index . 0).Capabilities.APIVersions -}}
{{- if and ($versions.Has "apps/v1/Deployment") (not ($versions.Has (index . 2))) -}}
{{- fail (printf "%s: the cluster has no %s: %s, or leave %s false" (index . 1) (index . 2) (index . 3) (index . 1)) -}}
{{- end -}}
{{- end -}}
