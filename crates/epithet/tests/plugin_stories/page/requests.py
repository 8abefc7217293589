"""As much of the module of this name as the page's plugin uses, for machines that do not have it."""

import json
import urllib.parse
import urllib.request


class Response:
    def __init__(self, body):
        self._body = body

    def json(self):
        return json.loads(self._body)


def post(url, data):
    body = urllib.parse.urlencode(data).encode()
    with urllib.request.urlopen(url, body, timeout=20) as answer:
        return Response(answer.read())
