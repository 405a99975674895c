# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container that runs in the background, for tests that ask it something."""

import http.client
import struct
import time
import urllib.parse

from . import procworld
from .engine import raw_request
from .process import LabError, Result, wait_for


class Container:
    """What only looks goes through the engine's API: a `docker` per look would be most of a test's work."""

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self._ip = None

    @classmethod
    def run(cls, lab, image, options=(), command=()):
        """docker run -d."""
        return cls(lab, lab.docker("run", "-d", *options, image, *command).out.strip())

    def _get(self, what, **query):
        path = f"/containers/{self.name}/{what}?{urllib.parse.urlencode(query)}"
        status, answer = self.lab.dockerd.request("GET", path)
        if status != http.client.OK:
            raise LabError(f"{path}: HTTP {status} {answer}")
        return answer

    def inspect(self):
        return self._get("json")

    @property
    def pid(self):
        pid = self.inspect()["State"]["Pid"]
        if pid <= 0:
            raise LabError(f"container {self.name} does not run")
        return pid

    @property
    def main(self):
        """pid of the image's program."""
        return wait_for(lambda: procworld.main_of(self.pid), 15, f"the program of {self.name}")

    @property
    def ip(self):
        """Its address on the first network that gave it one."""
        if not self._ip:
            networks = self.inspect()["NetworkSettings"]["Networks"].values()
            found = [n["IPAddress"] for n in networks if n["IPAddress"]]
            if not found:
                raise LabError(f"{self.name} has no address")
            self._ip = found[0]
        return self._ip

    def exec(self, *argv, options=(), **more):
        """docker exec."""
        return self.lab.docker("exec", *options, self.name, *argv, check=False, **more)

    def logs(self):
        """docker logs, as a Result; the container has no terminal (frames: Engine API, "Stream format")."""
        path = f"/containers/{self.name}/logs?stdout=1&stderr=1"
        status, data = raw_request("GET", path)
        if status != http.client.OK:
            raise LabError(f"{path}: HTTP {status} {data!r}")
        streams = {1: b"", 2: b""}
        while data:
            kind, size = struct.unpack(">B3xI", data[:8])
            streams[kind] += data[8:8 + size]
            data = data[8 + size:]
        return Result(["docker", "logs", self.name], 0, *(streams[k].decode(errors="replace") for k in (1, 2)), 0)

    def diff(self):
        """What it changed in its root, as `docker diff` has it."""
        return sorted(f"{'CAD'[change['Kind']]} {change['Path']}" for change in self._get("changes") or [])

    def health(self):
        """(status, [(exit code, output) of the first check]) once there is a verdict; None without a check."""
        def verdict():
            h = self.inspect()["State"].get("Health")
            return True if h is None else h if h["Status"] != "starting" else None

        h = wait_for(verdict, 20, "the health check's verdict")
        return None if h is True else (h["Status"], [(e["ExitCode"], e["Output"]) for e in h["Log"][:1]])

    def stop(self, timeout=20):
        """docker stop: (exit code, seconds)."""
        started = time.monotonic()
        self.lab.docker("stop", "-t", str(timeout), self.name)
        took = time.monotonic() - started
        return self.exit_code(), took

    def exit_code(self):
        return self.inspect()["State"]["ExitCode"]

    def remove(self):
        self.lab.docker("rm", "-fv", self.name, check=False)
