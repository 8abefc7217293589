#!/bin/sh
# In a GitHub Actions job with `permissions: id-token: write`: the job's own OpenID Connect token.
# The audience is what your policy server has as client id.
#   --auth 'examples/plugins/github-actions.sh epithet'
set -eu
cat > /dev/null
audience=${1:-epithet}
: "${ACTIONS_ID_TOKEN_REQUEST_URL:?not in a GitHub Actions job, or the job lacks the permission id-token: write}"
# The header comes from a file, not from an argument: arguments are for everybody to read.
reply=$(printf 'header = "Authorization: Bearer %s"\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" |
    curl --fail --silent --show-error --max-time 30 --config - "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=$audience")
printf '%s' "$(printf '%s' "$reply" | jq -r .value)"
printf '' >&3
