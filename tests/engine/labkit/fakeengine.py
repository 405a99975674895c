#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Docker engine that has no containers but says it has: the part of the Engine API that the agent follows nodes with.

fakeengine.py SOCKET serves it in a process of its own; Fake starts that and tells it what to say. The containers' processes, network
namespaces and veths are real and made elsewhere (worlds.py). Answers have the size of a real engine's: FILLER is what dockerd 20.10
says beyond what the agent reads.

    GET /version, /info, /events, /containers/json, /containers/ID/json; any other list is empty, any other thing unknown
    POST /fake/containers   [{"id", "name", "labels", "image", "pid", "state", "networks": {NAME: {...}}}]: they exist from now on
    POST /fake/events       [{"id", "action"}]: each changes the container's state, and is told to who follows the events
    GET /fake/requests      how many requests of each kind there were
"""

import asyncio
import collections
import http.client
import json
import socket
import sys
import time

if __package__:
    from .process import Service

FILLER = {"AppArmorProfile": "", "Args": ["100000"], "Created": "2026-01-01T00:00:00.000000000Z", "Driver": "overlay2", "ExecIDs": None,
          "GraphDriver": {"Data": {k: f"/var/lib/docker/overlay2/{'0123456789abcdef' * 4}/{k}"
                                   for k in ("LowerDir", "MergedDir", "UpperDir", "WorkDir")}, "Name": "overlay2"},
          "HostnamePath": f"/var/lib/docker/containers/{'0' * 64}/hostname", "LogPath": f"/var/lib/docker/containers/{'0' * 64}/json.log",
          "Path": "sleep", "Platform": "linux", "RestartCount": 0}
HOST_FILLER = {k: None for k in ("Binds", "CapAdd", "CapDrop", "Capabilities", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd",
                                 "Links", "SecurityOpt", "DeviceRequests", "Devices", "Ulimits", "VolumesFrom")}
HOST_FILLER.update({k: 0 for k in ("BlkioDeviceReadBps", "BlkioWeight", "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota", "CpuShares",
                                   "IOMaximumBandwidth", "IOMaximumIOps", "KernelMemory", "Memory", "MemorySwap", "NanoCpus", "ShmSize")})
HOST_FILLER.update({"MaskedPaths": [f"/proc/{k}" for k in ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "scsi")],
                    "ReadonlyPaths": [f"/proc/{k}" for k in ("bus", "fs", "irq", "sys", "sysrq-trigger")]})
VERSION = {"Version": "20.10.24+fake", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}


class Engine:
    """What it says."""

    def __init__(self):
        self.containers = {}
        self.said = {}  # (kind of answer, id): its text, until something happens to the container
        self.followers = set()
        self.requests = collections.Counter()

    def network_settings(self, c):
        return {"Networks": {name: {"IPAMConfig": None, "Links": None, "Aliases": None, "EndpointID": "e" * 64, "IPv6Gateway": "",
                                    "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DriverOpts": None, **n}
                             for name, n in c["networks"].items()}}

    def inspect(self, c):
        running = c["state"] == "running"
        return {**FILLER, "Id": c["id"], "Name": f"/{c['name']}", "Image": f"sha256:{'1' * 64}", "Mounts": [],
                "State": {"Status": c["state"], "Running": running, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
                          "Pid": c["pid"] if running else 0, "ExitCode": 0, "Error": "", "StartedAt": "", "FinishedAt": ""},
                "Config": {"Hostname": c["id"][:12], "Env": [], "Cmd": ["100000"], "Image": c["image"], "Labels": c["labels"]},
                "HostConfig": {**HOST_FILLER, "NetworkMode": next(iter(c["networks"]), "none"), "Runtime": "runc"},
                "NetworkSettings": {"Bridge": "", "SandboxID": "5" * 64, "Ports": {}, **self.network_settings(c)}}

    def listed(self, c):
        return {"Id": c["id"], "Names": [f"/{c['name']}"], "Image": c["image"], "ImageID": f"sha256:{'1' * 64}", "Command": "sleep",
                "Created": 1767225600, "Ports": [], "Labels": c["labels"], "State": c["state"], "Status": "Up", "Mounts": [],
                "HostConfig": {"NetworkMode": next(iter(c["networks"]), "none")}, "NetworkSettings": self.network_settings(c)}

    def text(self, describe, c):
        key = (describe.__name__, c["id"])
        if key not in self.said:
            self.said[key] = json.dumps(describe(c)).encode()
        return self.said[key]

    def happen(self, e):
        c = self.containers[e["id"]]
        for describe in (self.inspect, self.listed):
            self.said.pop((describe.__name__, c["id"]), None)
        c["state"] = {"start": "running", "die": "exited"}.get(e["action"], c["state"])
        if e["action"] == "destroy":
            del self.containers[c["id"]]
        now = time.time_ns()
        line = json.dumps({"status": e["action"], "id": c["id"], "from": c["image"], "Type": "container", "Action": e["action"],
                           "Actor": {"ID": c["id"], "Attributes": {**c["labels"], "image": c["image"], "name": c["name"]}},
                           "scope": "local", "time": now // 1000000000, "timeNano": now}).encode() + b"\n"
        for w in self.followers:
            w.write(b"%x\r\n%s\r\n" % (len(line), line))

    def answer(self, method, path, body):
        """(status, value or its text)."""
        path = path.split("?")[0]
        if path.startswith("/v1."):
            path = path[path.index("/", 1):]
        parts = path.strip("/").split("/")
        self.requests[f"{method} {'/containers/ID/json' if len(parts) == 3 else path}"] += 1
        if path == "/fake/containers":
            self.containers.update({c["id"]: c for c in json.loads(body)})
        elif path == "/fake/events":
            for e in json.loads(body):
                self.happen(e)
        elif path == "/fake/requests":
            return 200, self.requests
        elif path == "/version":
            return 200, VERSION
        elif path == "/info":
            return 200, {"Runtimes": {"runc": {}, "tbnode": {}}, "ServerVersion": VERSION["Version"]}
        elif path == "/containers/json":
            return 200, b"[" + b",".join(self.text(self.listed, c) for c in self.containers.values()) + b"]"
        elif parts[0] == "containers" and len(parts) == 3 and parts[1] in self.containers:
            return 200, self.text(self.inspect, self.containers[parts[1]])
        elif path == "/volumes":
            return 200, {"Volumes": [], "Warnings": None}
        elif path in ("/networks", "/images/json"):
            return 200, []
        else:
            return 404, {"message": f"the fake engine has no {path}"}
        return 200, {}

    async def answer_later(self, _method, _path, _body):
        """For engines that can do more."""
        return None

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                size = next((int(h.split(":")[1]) for h in head if h.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(size)
                if path.split("?")[0].endswith("/events") and method == "GET":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                    self.followers.add(writer)
                    continue
                status, value = await self.answer_later(method, path, body) or self.answer(method, path, body)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.followers.discard(writer)
            writer.close()


async def serve_engine(engine, path):
    server = await asyncio.start_unix_server(engine.serve, path, backlog=512, limit=1 << 26)
    async with server:
        await server.serve_forever()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("fake", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


if __package__:
    class Fake(Service):
        """One of them, in a process of its own."""

        def __init__(self, log_dir, path, name="fake-engine", program=__file__):
            super().__init__(name, f"{log_dir}/{name}.log")
            self.path, self.program = path, program

        def start(self, enter=()):
            """enter: words in front of the program, which take it to another namespace."""
            self.spawn([*enter, sys.executable, self.program, self.path], probe=self._answers)
            return self

        def _answers(self):
            try:
                return self.ask("GET", "/version")["ApiVersion"]
            except OSError:
                return False

        def ask(self, method, path, value=None):
            c = _Connection(self.path)
            try:
                c.request(method, path, None if value is None else json.dumps(value))
                return json.loads(c.getresponse().read())
            finally:
                c.close()

        def add(self, containers):
            self.ask("POST", "/fake/containers", containers)

        def happen(self, action, *containers):
            self.ask("POST", "/fake/events", [{"id": c["id"], "action": action} for c in containers])


if __name__ == "__main__":
    asyncio.run(serve_engine(Engine(), sys.argv[1]))
