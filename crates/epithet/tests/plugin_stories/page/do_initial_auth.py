def do_initial_auth():
    data = requests.post('https://auth.example.com/token', data={
        'grant_type': 'authorization_code',
        'code': 'what-the-browser-came-back-with',
        'client_id': 'client123',
    }).json()
    return data['access_token'], data['refresh_token']
