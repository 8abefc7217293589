#!/bin/sh
# Google's own command line is logged in already: its identity token, for the client id that your policy server expects.
#   --auth 'examples/plugins/gcloud.sh'             (user accounts: the audience is gcloud's own client id)
#   --auth 'examples/plugins/gcloud.sh --impersonate-service-account=me@project.iam.gserviceaccount.com --audiences=ssh'
set -eu
cat > /dev/null
token=$(gcloud auth print-identity-token "$@")
printf '%s' "$token"
printf '' >&3
