# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnoded in the laboratory."""

import os
import socket

from .process import LabError, Service, run

CONFIG = "/etc/tbnode/tbnoded.conf"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "other")
SOCKET = "/run/tbnode/tbnoded.sock"


class Agent(Service):
    def __init__(self, lab):
        super().__init__("tbnoded", f"{lab.dir}/logs/tbnoded.log")
        self.lab = lab
        self._started_with = ({}, {}, ())

    def write_config(self, config=None, raw=None, path=CONFIG):
        """Writes the default configuration with the given keys changed (None removes one), or raw text."""
        keys = {"registry": "http://127.0.0.1:5000", "docker": "unix:///var/run/docker.sock"}
        keys.update(config or {})
        keys.setdefault("ssh-tree", f"{self.lab.dir}/payload/{ARCH}/node")
        text = raw if raw is not None else "".join(f"{k}={v}\n" for k, v in keys.items() if v is not None)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def start(self, config=None, env=None, args=(), services=True, timeout=30):
        """Starts it and waits until its socket answers. services: the engine and the local registry as well."""
        if services:
            self.lab.dockerd.ensure()
            self.lab.local.ensure()
        self._started_with = (config, env, args)
        program = f"{self.lab.install()}/tbnoded"
        if not os.path.exists(program):
            raise LabError(f"tbnoded is not in the build folder {self.lab.build}")
        self.spawn([program, "--config", self.write_config(config), *args], env=env, probe=self.answers,
                   timeout=timeout)
        return self

    def restart(self):
        self.stop()
        config, env, args = self._started_with
        return self.start(config, env, args)

    @staticmethod
    def answers():
        """True when something accepts on the API socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            try:
                s.connect(SOCKET)
                return True
            except OSError:
                return False

    def run(self, *args, timeout=20, **options):
        """Runs tbnoded in the foreground to its end: --check-config, wrong usage, failing starts."""
        return run([f"{self.lab.install()}/tbnoded", *args], check=False, timeout=timeout, **options)

    def prepare_shutdown(self):
        pass
