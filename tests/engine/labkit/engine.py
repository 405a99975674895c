# SPDX-License-Identifier: LGPL-2.1-or-later
"""The private Docker engine."""

import http.client
import json
import os
import socket

from .process import Service, run

SOCKET = "/run/docker.sock"


class _UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def raw_request(method, path, timeout=60):
    """One API request without a body: (status, bytes)."""
    c = _UnixConnection("docker", timeout=timeout)
    try:
        c.request(method, path)
        answer = c.getresponse()
        return answer.status, answer.read()
    finally:
        c.close()


class Engine(Service):
    def __init__(self, lab):
        super().__init__("dockerd", f"{lab.dir}/logs/dockerd.log")
        self.lab = lab

    def start(self, *extra, config=None, iptables=None):
        """extra: more dockerd options; config: more daemon.json keys; iptables: "legacy" or "nft" instead of what the host has. Ready
        when it says so (sd_notify)."""
        env = {}
        if iptables:
            programs = f"{self.lab.dir}/docker/{iptables}"
            os.makedirs(programs, exist_ok=True)
            for name in ("iptables", "ip6tables"):
                for tool in ("", "-save", "-restore"):
                    if not os.path.lexists(f"{programs}/{name}{tool}"):
                        os.symlink(f"/usr/sbin/{name}-{iptables}{tool}", f"{programs}/{name}{tool}")
            env["PATH"] = f"{programs}:{os.environ['PATH']}"
        daemon = {"insecure-registries": ["127.0.0.1:5000"], "log-level": "warn",
                  "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}]}
        daemon.update(config or {})
        os.makedirs(f"{self.lab.dir}/docker", mode=0o711, exist_ok=True)
        with open(f"{self.lab.dir}/docker/daemon.json", "w", encoding="utf-8") as f:
            json.dump(daemon, f)
        # What a killed engine leaves would keep the next one from starting.
        for stale in ("/run/docker.pid", "/run/docker/containerd/containerd.pid"):
            if os.path.exists(stale):
                os.unlink(stale)
        self.spawn(["/usr/sbin/dockerd", "--config-file", f"{self.lab.dir}/docker/daemon.json",
                    "--data-root", f"{self.lab.dir}/docker/data", "--exec-root", "/run/docker",
                    "--pidfile", "/run/docker.pid", "--host", f"unix://{SOCKET}", "--bip", "10.200.0.1/24",
                    "--cgroup-parent", self.lab.id, *extra], env=env, notify=True, timeout=60)
        return self

    def ensure(self):
        if not self.running:
            self.start()
        return self

    def restart(self):
        self.stop(timeout=60)
        return self.start()

    def request(self, method, path, body=None, timeout=60):
        """One API request: (status, parsed JSON or text)."""
        c = _UnixConnection("docker", timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            c.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = c.getresponse()
            text = answer.read().decode(errors="replace")
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text
        finally:
            c.close()

    def prepare_shutdown(self):
        """Removes all containers, so that the engine ends at once and the agent sees them go."""
        if not self.running:
            return
        ids = run(["/usr/bin/docker", "ps", "-aq"], timeout=30).out.split()
        if ids:
            run(["/usr/bin/docker", "rm", "-fv", *ids], check=False, timeout=120)

    def stop(self, timeout=60):
        return super().stop(timeout)
