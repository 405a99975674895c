# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lab: the one object a test file works with."""

import glob
import json
import os
import shutil

from . import kernel, sanitizer
from .agent import Agent
from .engine import Engine
from .process import LabError, run
from .pki import Authority
from .registry import Hub, Registry

PROGRAM_FOLDERS = ("common", "registry-client", "augment", "netctl", "agent")


class Lab(kernel.KernelView):
    _one = None

    @classmethod
    def get(cls):
        """The laboratory of this process."""
        if cls._one is None:
            cls._one = cls()
        return cls._one

    def __init__(self):
        if "TBNODE_LAB_DIR" not in os.environ:
            raise LabError("no laboratory here: the test file must end with lab.main()")
        self.dir = os.environ["TBNODE_LAB_DIR"]
        self.id = os.environ["TBNODE_LAB_ID"]
        here = os.path.dirname(os.path.abspath(__file__))
        self.source = os.environ.get("TBNODE_SOURCE_DIR", os.path.abspath(f"{here}/../../.."))
        self.build = os.path.abspath(os.environ.get("TBNODE_BUILD_DIR", f"{self.source}/build"))
        self._counter = 0
        self._installed = False
        self._services = []
        self.authority = Authority(f"{self.dir}/pki")
        self.dockerd = self._add(Engine(self))
        self.local = self._add(Registry(self, "local"))
        self.hub = self._add(Hub(self, "hub"))
        self.tbnoded = self._add(Agent(self))

    def _add(self, service):
        self._services.append(service)
        return service

    def tmp(self, name="t"):
        """A new empty folder, world readable (workers run unprivileged)."""
        self._counter += 1
        path = f"{self.dir}/tmp/{self._counter:03}-{name}"
        os.makedirs(path, mode=0o755)
        return path

    # ---- programs ----

    def run(self, *argv, **options):
        """run("tc", "qdisc") or run(["tc", "qdisc"]); see process.run for the options."""
        if len(argv) == 1 and isinstance(argv[0], (list, tuple)):
            argv = argv[0]
        return run(argv, **options)

    def install(self):
        """Copies the programs and the payload out of the build folder, which may lie below a home that the
        unprivileged worker can't enter. Returns the folder of the programs."""
        if self._installed:
            return f"{self.dir}/bin"
        for folder in PROGRAM_FOLDERS:
            for path in glob.glob(f"{self.build}/{folder}/tbnode*"):
                if os.path.isfile(path) and os.access(path, os.X_OK) and not path.endswith(".so"):
                    shutil.copy(path, f"{self.dir}/bin/")
        if sanitizer.build():
            for path in sanitizer.PROGRAMS:
                shutil.copy(f"{sanitizer.build()}/{path}", f"{self.dir}/bin/")
        if os.path.isdir(f"{self.build}/augment/payload"):
            shutil.copytree(f"{self.build}/augment/payload", f"{self.dir}/payload", dirs_exist_ok=True, symlinks=True,
                            ignore=lambda base, names: [n for n in names if n.endswith(".p") or n == "src"])
        os.environ.update(self.program_env())
        self._installed = True
        return f"{self.dir}/bin"

    def program_env(self):
        return {"TBNODE_PAYLOAD_DIR": f"{self.dir}/payload",
                "TBNODE_WORKER": f"{self.dir}/bin/tbnode-augment-worker"}

    def program(self, name, *args, check=False, **options):
        """Runs a program of the build; by default its exit status is for the test to look at."""
        path = f"{self.install()}/{name}"
        if not os.path.exists(path):
            raise LabError(f"{name} is not in the build folder {self.build}")
        return run([path, *args], check=check, **options)

    def tbnode(self, *args, check=False, timeout=180, **options):
        return self.program("tbnode", *args, check=check, timeout=timeout, **options)

    def docker(self, *args, check=True, timeout=180, **options):
        """Debian's client; starts the private dockerd when it does not run."""
        self.dockerd.ensure()
        return run(["/usr/bin/docker", *args], check=check, timeout=timeout, **options)

    def skopeo(self, *args, check=True, timeout=180, **options):
        return run(["/usr/bin/skopeo", "--insecure-policy", *args], check=check, timeout=timeout, **options)

    def umoci(self, *args, check=True, timeout=180, **options):
        return run(["/usr/bin/umoci", *args], check=check, timeout=timeout, **options)

    @staticmethod
    def ssh_dir():
        """~/.ssh, made when missing."""
        path = f"{os.environ['HOME']}/.ssh"
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def docker_config(self, auths):
        """Writes ~/.docker/config.json from {"registry host": ("user", "password")}; {} removes it."""
        import base64
        path = f"{os.environ['HOME']}/.docker/config.json"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not auths:
            if os.path.exists(path):
                os.unlink(path)
            return path
        entries = {h: {"auth": base64.b64encode(f"{u}:{p}".encode()).decode()} for h, (u, p) in auths.items()}
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"auths": entries}, f)
        return path

    # ---- end ----

    def print_logs(self):
        """After a failure: the end of each service's log, as TAP comments, without what is always there."""
        for s in self._services:
            lines = [line.strip() for line in s.log_tail(200).splitlines()]
            if s is self.dockerd:
                lines = [line for line in lines if "level=info" not in line and "level=warning" not in line]
            for line in lines[-25 if s is self.tbnoded else -8:]:
                print(f"# {line[:240]}")

    def shutdown(self):
        """Ends everything in the order an operator would: containers, agent, engine, registries."""
        for service in [self.dockerd, self.tbnoded]:
            try:
                service.prepare_shutdown()
            except LabError as e:
                print(f"# shutdown: {e}")
        for service in [self.tbnoded, self.dockerd, self.local, self.hub]:
            try:
                service.stop()
            except LabError as e:
                print(f"# shutdown: {e}")
                service.kill()
