# SPDX-License-Identifier: LGPL-2.1-or-later
"""A certificate authority and certificates made with openssl(1), and tokens signed with them."""

import base64
import json
import os
import subprocess
import time

from .process import run

TRUST_STORE = "/etc/ssl/certs/ca-certificates.crt"  # what libcurl and Go read on Debian; /etc is an overlay here


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.ca = f"{folder}/ca.pem"

    def ensure(self):
        """Makes the CA and lets the sandbox trust it."""
        if os.path.exists(self.ca):
            return
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "2",
             "-subj", "/CN=tbnode laboratory CA", "-addext", "basicConstraints=critical,CA:TRUE",
             "-keyout", f"{self.folder}/ca.key", "-out", self.ca])
        os.makedirs(os.path.dirname(TRUST_STORE), exist_ok=True)
        with open(self.ca, encoding="ascii") as f, open(TRUST_STORE, "a", encoding="ascii") as store:
            store.write("\n" + f.read())

    def certificate(self, name, hosts):
        """(certificate path, key path) for a server with these names and addresses."""
        self.ensure()
        cert, key = f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key"
        if os.path.exists(cert):
            return cert, key
        names = ",".join(("IP:" if h.replace(".", "").isdigit() else "DNS:") + h for h in hosts)
        run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-sha256", "-subj", f"/CN={hosts[0]}",
             "-keyout", key, "-out", f"{self.folder}/{name}.csr"])
        with open(f"{self.folder}/{name}.ext", "w", encoding="ascii") as f:
            f.write(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n")
        run(["openssl", "x509", "-req", "-in", f"{self.folder}/{name}.csr", "-CA", self.ca,
             "-CAkey", f"{self.folder}/ca.key", "-CAcreateserial", "-days", "2", "-sha256",
             "-extfile", f"{self.folder}/{name}.ext", "-out", cert])
        return cert, key


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(cert, key, issuer, audience, subject, access, lifetime=300):
    """A registry token (distribution spec "token authentication"): a JWT, RS256, with the certificate as x5c."""
    with open(cert, encoding="ascii") as f:
        der = "".join(f.read().split("-----")[2].split())
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
    claims = {"iss": issuer, "sub": subject, "aud": audience, "exp": now + lifetime, "nbf": now - 30, "iat": now,
              "jti": os.urandom(8).hex(), "access": access}
    body = _b64(json.dumps(header).encode()) + "." + _b64(json.dumps(claims).encode())
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=body.encode(), check=True,
                               stdout=subprocess.PIPE, timeout=20).stdout
    return f"{body}.{_b64(signature)}"
