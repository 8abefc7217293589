#!/bin/sh
# In a pod: the service account's projected token, which the kubelet renews. Mount one with your policy server's audience.
#   --auth 'examples/plugins/kubernetes.sh /var/run/secrets/tokens/epithet'
set -eu
cat > /dev/null
file=${1:-/var/run/secrets/tokens/epithet}
[ -r "$file" ] || { echo "$file: there is no such token; mount a projected serviceAccountToken with your audience" >&2; exit 1; }
token=$(cat "$file")
printf '%s' "$token"
printf '' >&3
