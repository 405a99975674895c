# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container that runs in the background, for tests that ask it something."""

import json
import time

from . import procworld
from .process import LabError, wait_for


class Container:
    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self._ip = None

    @classmethod
    def run(cls, lab, image, options=(), command=()):
        """docker run -d."""
        return cls(lab, lab.docker("run", "-d", *options, image, *command).out.strip())

    def inspect(self):
        return json.loads(self.lab.docker("inspect", self.name).out)[0]

    @property
    def pid(self):
        return self.lab.container_pid(self.name)

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
        return self.lab.docker("logs", self.name)

    def diff(self):
        """What it changed in its root, as `docker diff` has it."""
        return sorted(self.lab.docker("diff", self.name).out.splitlines())

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
