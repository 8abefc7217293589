#!/usr/bin/env python3
import sys
import os
import json
import requests
# Read state from stdin
state_bytes = sys.stdin.buffer.read()
state = json.loads(state_bytes) if state_bytes else {}
# Check if we have a refresh token
if 'refresh_token' in state:
    # Refresh the token
    response = requests.post('https://auth.example.com/token', data={
        'grant_type': 'refresh_token',
        'refresh_token': state['refresh_token'],
        'client_id': 'client123',
    })
    data = response.json()
    access_token = data['access_token']
    new_refresh_token = data.get('refresh_token', state['refresh_token'])
else:
    # Perform initial authentication
    # (implementation depends on your auth system)
    access_token, new_refresh_token = do_initial_auth()
# Output access token to stdout
sys.stdout.buffer.write(access_token.encode())
# Output new state to fd 3
state_fd = os.fdopen(3, 'wb')
state_fd.write(json.dumps({
    'refresh_token': new_refresh_token
}).encode())
state_fd.close()
