#!/bin/bash
# The smallest plugin: a command that prints a token. It keeps no state.
#   --auth 'examples/plugins/static-command.sh my-auth-command'
set -euo pipefail
cat > /dev/null               # the state, unused
token=$("$@")
printf '%s' "$token"          # no line end: the token is taken as it is
printf '' >&3                 # no state
