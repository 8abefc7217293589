#!/usr/bin/env python3
"""The device flow (RFC 8628): the person enters a code on any device. Standard library only.

    --auth 'ISSUER=https://login.example.com CLIENT_ID=ssh examples/plugins/device-code.py'

`epithet auth oidc --flow device` does this and much more; here it is small enough to read.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def fetch(url, form=None):
    body = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(url, body, timeout=30) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return json.load(error)


def say(line):
    """Shows a line to the person who waits: fd 4 if the broker shows progress, else stderr."""
    try:
        os.write(4, (line + "\n").encode())
    except OSError:
        print(line, file=sys.stderr)


def log_in(provider, client):
    device = fetch(provider["device_authorization_endpoint"], {**client, "scope": "openid email offline_access"})
    say(f"Open {device['verification_uri']} and enter the code {device['user_code']}")
    interval = device.get("interval", 5)
    deadline = time.monotonic() + device["expires_in"]
    while time.monotonic() < deadline:
        time.sleep(interval)
        reply = fetch(
            provider["token_endpoint"], {**client, "grant_type": DEVICE, "device_code": device["device_code"]}
        )
        if reply.get("error") == "slow_down":
            interval += 5
        elif reply.get("error") != "authorization_pending":
            return reply
    raise SystemExit("nobody entered the code in time")


def main():
    text = sys.stdin.buffer.read()
    state = json.loads(text) if text else {}
    provider = fetch(os.environ["ISSUER"] + "/.well-known/openid-configuration")
    client = {"client_id": os.environ["CLIENT_ID"]}
    old = state.get("refresh_token")
    reply = {}
    if old:
        reply = fetch(provider["token_endpoint"], {**client, "grant_type": "refresh_token", "refresh_token": old})
    if "id_token" not in reply:
        if os.environ.get("EPITHET_INTERACTIVE") == "0":
            raise SystemExit("nobody is at a terminal to enter a code")
        reply = log_in(provider, client)
    if "id_token" not in reply:
        raise SystemExit(f"the provider refused: {reply.get('error')} {reply.get('error_description', '')}")
    sys.stdout.write(reply["id_token"])
    with os.fdopen(3, "w") as new_state:
        json.dump({"refresh_token": reply.get("refresh_token", old)}, new_state)


main()
