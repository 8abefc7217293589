#!/usr/bin/env python3
"""A refresh token in the state: log in once, then only refresh. Standard library only.

    --auth 'AUTH_URL=https://auth.example.com/token CLIENT_ID=ssh examples/plugins/refresh-token.py'

The first login asks for a password at the terminal's own login program; put yours into `first_login`.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def ask(form):
    body = urllib.parse.urlencode({**form, "client_id": os.environ["CLIENT_ID"]}).encode()
    with urllib.request.urlopen(os.environ["AUTH_URL"], body, timeout=30) as reply:
        return json.load(reply)


def first_login():
    return ask({"grant_type": "client_credentials"})


def main():
    text = sys.stdin.buffer.read()
    state = json.loads(text) if text else {}
    old = state.get("refresh_token")
    try:
        reply = ask({"grant_type": "refresh_token", "refresh_token": old}) if old else first_login()
    except urllib.error.HTTPError as error:
        if not old or error.code not in (400, 401):
            raise SystemExit(f"the token endpoint answered {error.code}")
        # The refresh token has ended: begin again.
        reply = first_login()

    sys.stdout.buffer.write(reply["access_token"].encode())
    with os.fdopen(3, "wb") as new_state:
        new_state.write(json.dumps({"refresh_token": reply.get("refresh_token", old)}).encode())


main()
