#!/usr/bin/env python3
"""A policy server for Epithet in one page: who may log in where, for how long.

Standard library, and the openssl program for the CA's signature. The rules are in a JSON file:

    {"people": {"<SHA-256 of the token, hex>": {"identity": "alice@example.com", "logins": ["root"], "hosts": "*.example.com"}},
     "seconds": 300, "auth": {"issuer": "https://accounts.google.com", "client_id": "..."}}

Tokens here are secrets that were handed out; yours may be anything that your auth plugin prints. Where this page does
look_up(), verify a JWT, ask a directory, or call your own service.

    policy_server.py --ca-pubkey ca.key.pub --rules rules.json --listen 127.0.0.1:9999
    policy_server.py --ca-pubkey ca.key.pub --rules rules.json --listen unix:///run/epithet/policy.sock

With --reply-key (a file by: openssl genpkey -algorithm ed25519 -out reply.pem) every answer is signed, and a CA that has
what --show-reply-key prints as its --policy-key believes no others.
"""

import argparse
import base64
import fnmatch
import hashlib
import hmac
import http.server
import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

BODY_MAX = 103764  # a token of 64 KiB, in base64, and the connection
LIFE_MAX = 60  # seconds; the CA's tokens live no longer
LEEWAY = 5  # seconds that the two clocks may differ
ED25519_DER = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before a public key's 32 bytes


class NotTheCa(Exception):
    """The request is not from the CA."""


def base64url(content):
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unbase64url(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


class Ca:
    """The CA's public key, and which of its requests were answered already."""

    def __init__(self, line):
        kind, blob = line.split()[:2]
        if kind != "ssh-ed25519":
            sys.exit(f"this example knows ssh-ed25519 keys only, not {kind}")
        blob = base64.b64decode(blob)
        self.fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        der = base64.encodebytes(ED25519_DER + blob[-32:]).decode()
        self.pem = f"-----BEGIN PUBLIC KEY-----\n{der}-----END PUBLIC KEY-----\n"
        self.seen, self.lock = {}, threading.Lock()

    def verify(self, authorization, method, target, body):
        """The request's name (jti). Raises NotTheCa unless the CA made this very request, now, and for the first time."""
        scheme, _, token = (authorization or "").partition(" ")
        try:
            signed, _, signature = token.rpartition(".")
            header, claims = (json.loads(unbase64url(part)) for part in signed.split("."))
            signature = unbase64url(signature)
        except ValueError:
            raise NotTheCa("missing or malformed Authorization header") from None
        if scheme != "Bearer" or header.get("alg") != "EdDSA" or not self.signed(signed.encode(), signature):
            raise NotTheCa("the service token is not signed by a CA that this policy server knows")
        now = int(time.time())
        digest = base64url(hashlib.sha256(body).digest())
        for claim, is_right in [
            ("iss", claims.get("iss") == self.fingerprint),
            ("aud", claims.get("aud") == "epithet-policy"),
            ("iat", claims["iat"] <= now + LEEWAY),
            ("exp", now < claims["exp"] + LEEWAY and 0 <= claims["exp"] - claims["iat"] <= LIFE_MAX),
            ("htm", claims.get("htm") == method),
            ("htu", claims.get("htu", "").lower() == target.lower()),
            ("bh", hmac.compare_digest(claims.get("bh", ""), digest)),
            ("jti", bool(claims.get("jti")) and self.is_new(claims["jti"], now)),
        ]:
            if not is_right:
                raise NotTheCa(f"the service token's {claim} is wrong")
        return claims["jti"]

    def signed(self, message, signature):
        with tempfile.TemporaryDirectory() as folder:
            names = [os.path.join(folder, name) for name in ("key", "message", "signature")]
            for name, content in zip(names, (self.pem.encode(), message, signature)):
                with open(name, "wb") as file:
                    file.write(content)
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", names[0], "-rawin", "-in", names[1]]
            return subprocess.run([*command, "-sigfile", names[2]], capture_output=True).returncode == 0

    def is_new(self, jti, now):
        with self.lock:
            self.seen = {seen: end for seen, end in self.seen.items() if end >= now}
            if jti in self.seen:
                return False
            self.seen[jti] = now + LIFE_MAX + 2 * LEEWAY
            return True


class ReplyKey:
    """The key that answers are signed with; openssl keeps it."""

    def __init__(self, path):
        self.path = path
        command = ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"]
        der = subprocess.run(command, check=True, capture_output=True).stdout
        if not der.startswith(ED25519_DER):
            sys.exit(f"{path} is no ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out {path}")
        fields = [b"ssh-ed25519", der[len(ED25519_DER) :]]
        blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        self.line = "ssh-ed25519 " + base64.b64encode(blob).decode()
        self.fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def sign(self, jti, status, body):
        """The value of the header Epithet-Reply-Signature: this answer, to this question and no other."""
        now = int(time.time())
        claims = {"iss": self.fingerprint, "aud": "epithet-ca", "jti": jti, "iat": now, "exp": now + LIFE_MAX}
        claims |= {"status": status, "bh": base64url(hashlib.sha256(body).digest())}
        parts = [{"alg": "EdDSA", "typ": "epithet-reply+jwt"}, claims]
        signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        with tempfile.NamedTemporaryFile() as message:
            message.write(signed.encode())
            message.flush()
            command = ["openssl", "pkeyutl", "-sign", "-inkey", self.path, "-rawin", "-in", message.name]
            return signed + "." + base64url(subprocess.run(command, check=True, capture_output=True).stdout)


class Rules:
    """The rules, and the one question they answer."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.rules = json.load(file)

    def look_up(self, token):
        return self.rules["people"].get(hashlib.sha256(token).hexdigest())

    def decide(self, request):
        """A status, and either the certificate's contents or a sentence for the person who asked."""
        token = request["token"].encode()
        if request.get("tokenEncoding") == "base64url":
            token = unbase64url(request["token"])
        person = self.look_up(token)
        if person is None:
            return 401, "Invalid token: log in again"
        connection = request["connection"]
        host, user = connection["remoteHost"].lower(), connection["remoteUser"]
        if not fnmatch.fnmatchcase(host, person["hosts"]):
            return 422, f"{host} is not a host of this CA"
        if user not in person["logins"]:
            return 403, f"User {person['identity']} not authorized for {user}@{host}"
        return 200, {
            "certParams": {
                "identity": person["identity"],
                "principals": [user],
                "expiration": self.rules["seconds"] * 1_000_000_000,
                "extensions": {"permit-pty": ""},
                "notAfter": "0001-01-01T00:00:00Z",
            }
        }

    def discovery(self):
        return {"auth": {"type": "oidc", **self.rules["auth"]}} if "auth" in self.rules else {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    ca = rules = reply_key = None

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        self.question = None  # the jti of the CA's token, once it is known to be the CA's
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_MAX:
            self.close_connection = True
            return self.say(413, "the body is too large")
        body = self.rfile.read(length)
        try:
            target = self.headers.get("Host", "") + self.path.split("?")[0]
            self.question = self.ca.verify(self.headers.get("Authorization"), self.command, target, body)
        except (NotTheCa, KeyError, TypeError) as error:
            return self.say(401, f"request verification failed: {error}", {"Epithet-Error": "service-auth"})
        if self.command == "GET":
            return self.say(200, self.rules.discovery(), {"Cache-Control": "max-age=300"})
        try:
            status, said = self.rules.decide(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            status, said = 400, f"Invalid JSON: {error}"
        return self.say(status, said)

    def say(self, status, said, headers=None):
        is_text = isinstance(said, str)
        body = said.encode() if is_text else json.dumps(said).encode()
        self.send_response_only(status)
        self.log_request(status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.reply_key and self.question:
            self.send_header("Epithet-Reply-Signature", self.reply_key.sign(self.question, status, body))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "the CA"


class OnSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ca-pubkey", required=True, metavar="FILE")
    parser.add_argument("--rules", required=True, metavar="FILE")
    parser.add_argument("--listen", default="127.0.0.1:9999", metavar="ADDRESS")
    parser.add_argument("--reply-key", metavar="FILE", help="sign answers with this key (PEM, ed25519)")
    parser.add_argument("--show-reply-key", action="store_true", help="print the CA's --policy-key, and end")
    options = parser.parse_args()
    Handler.reply_key = ReplyKey(options.reply_key) if options.reply_key else None
    if options.show_reply_key:
        sys.exit(print(Handler.reply_key.line) if Handler.reply_key else "--show-reply-key needs --reply-key")
    with open(options.ca_pubkey, encoding="utf-8") as file:
        Handler.ca = Ca(file.readline())
    Handler.rules = Rules(options.rules)
    if options.listen.startswith("unix://"):
        path = options.listen.removeprefix("unix://")
        if os.path.exists(path):
            os.unlink(path)
        os.umask(0o177)  # the CA's user and nobody else
        server, url = OnSocket(path, Handler), options.listen
    else:
        host, _, port = options.listen.rpartition(":")
        server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
        url = f"http://{host}:{server.server_port}"
    print(f"ready: listening on {url}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
