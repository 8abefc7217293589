#!/bin/bash
# State in a shell: a JSON object that goes round through fd 3, read and written with jq.
# AUTH_URL is the token endpoint of whatever you log in at.
#   --auth 'AUTH_URL=https://auth.example.com/token examples/plugins/state.sh'
set -euo pipefail

state=$(cat)
refresh_token=$(jq -r '.refresh_token? // empty' <<< "$state")

say() { printf '%s\n' "$*" 2> /dev/null >&4 || printf '%s\n' "$*" >&2; }

if [ -n "$refresh_token" ]; then
    grant="grant_type=refresh_token&refresh_token=$(jq -rn --arg v "$refresh_token" '$v | @uri')"
else
    # A login that needs a person would ask here, and fail when EPITHET_INTERACTIVE is 0.
    say "Logging in for ${EPITHET_USER:-you} at ${EPITHET_HOST:-nowhere in particular}"
    grant='grant_type=client_credentials'
fi

# The body goes through stdin: what is in an argument, every process on the machine can read.
reply=$(curl --fail --silent --show-error --max-time 30 --data @- "$AUTH_URL" <<< "$grant")
printf '%s' "$(jq -r '.access_token' <<< "$reply")"
jq -c --arg old "$refresh_token" '{refresh_token: (.refresh_token // $old)}' <<< "$reply" >&3
