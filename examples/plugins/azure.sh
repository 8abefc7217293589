#!/bin/sh
# Azure's own command line is logged in already: an access token for the application that your policy server expects.
#   --auth 'examples/plugins/azure.sh api://epithet'
set -eu
cat > /dev/null
[ $# -eq 1 ] || { echo "usage: azure.sh APPLICATION-ID-URI" >&2; exit 2; }
token=$(az account get-access-token --resource "$1" --query accessToken --output tsv)
printf '%s' "$token"
printf '' >&3
