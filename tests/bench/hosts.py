#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts that are network namespaces: in each a fake engine that `tbnode run` can ask for nodes, and an agent.

hosts.py SOCKET is such an engine, started in its host's namespace: what fakeengine.py answers, and beyond it images, networks, and the
creation and start of containers. A pull by digest asks the registry for what dockerd 20.10.24 was seen to ask it for: /v2/, the
manifest, the configuration, each layer; and for /v2/ alone when it has the image. Nothing is unpacked. A start makes a process with a
network namespace and a veth for each network, and tells of it."""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse

import benchlib  # noqa: F401  puts the laboratory on sys.path
from labkit.fakeengine import Engine, Fake, serve_engine
from labkit.process import Service, run

TYPES = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
BRIDGE_MAC = "02:42:0a:00:00:01"


def identity(text):
    return hashlib.sha256(text.encode()).hexdigest()


class RunEngine(Engine):
    def __init__(self):
        super().__init__()
        self.images, self.networks, self.veths = {}, {}, 0
        self.pulling = asyncio.Lock()

    # ---- images ----

    def pull(self, name, digest):
        host, repository = name.split("/", 1)

        def get(path, c=None):
            c = c or http.client.HTTPConnection(host, timeout=120)
            c.request("GET", path, headers={"Accept": TYPES, "User-Agent": "docker/20.10.24"})
            r = c.getresponse()
            body = r.read()
            if r.status != 200:
                raise OSError(f"GET {path}: {r.status}")
            return body, c
        _, c = get("/v2/")
        if f"{name}@{digest}" in self.images:
            c.close()
            return
        manifest = json.loads(get(f"/v2/{repository}/manifests/{digest}", c)[0])
        config = json.loads(get(f"/v2/{repository}/blobs/{manifest['config']['digest']}", c)[0])
        for layer in manifest["layers"]:
            get(f"/v2/{repository}/blobs/{layer['digest']}")[1].close()
        c.close()
        self.images[f"{name}@{digest}"] = {
            "Id": manifest["config"]["digest"], "RepoDigests": [f"{name}@{digest}"], "RepoTags": [], "Os": config["os"],
            "Architecture": config["architecture"], "Config": config.get("config", {}), "RootFS": config.get("rootfs", {})}

    # ---- networks ----

    def make_network(self, name):
        n = len(self.networks)
        network = identity(f"network {name}")
        bridge = f"br-{network[:12]}"
        run(["ip", "link", "add", bridge, "address", BRIDGE_MAC, "type", "bridge"])
        run(["ip", "addr", "add", f"10.{100 + n}.0.1/16", "dev", bridge])
        run(["ip", "link", "set", bridge, "up"])
        self.networks[name] = {"Name": name, "Id": network, "Driver": "bridge", "Labels": {}, "Containers": {}, "Options": {},
                               "IPAM": {"Config": [{"Subnet": f"10.{100 + n}.0.0/16", "Gateway": f"10.{100 + n}.0.1"}]},
                               "bridge": bridge, "number": n, "next": 2}
        return network

    def attach(self, c, name):
        n = self.networks[name]
        i, k = n["next"], 100 + n["number"]
        n["next"] += 1
        c["networks"][name] = {"NetworkID": n["Id"], "MacAddress": f"02:42:0a:{k:02x}:{i >> 8:02x}:{i & 255:02x}",
                               "IPAddress": f"10.{k}.{i >> 8}.{i & 255}", "IPPrefixLen": 16, "Gateway": f"10.{k}.0.1"}

    # ---- containers ----

    def create(self, name, body):
        container = identity(f"{name} {time.time_ns()}")
        c = {"id": container, "name": name, "labels": body.get("Labels") or {}, "image": body["Image"], "pid": 0, "state": "created",
             "networks": {}}
        self.containers[container] = c
        host = body.get("HostConfig", {})
        mode = host.get("NetworkMode") or "bridge"
        self.mounts(c, host)
        if mode in self.networks:
            self.attach(c, mode)
        self.happen({"id": container, "action": "create"})
        return container

    @staticmethod
    def mounts(c, host):
        pairs = [b.split(":")[:2] for b in host.get("Binds") or []]
        pairs += [(m["Source"], m["Target"]) for m in host.get("Mounts") or [] if m.get("Type") == "bind"]
        c["mounts"] = [{"Type": "bind", "Source": s, "Destination": d, "Mode": "", "RW": True, "Propagation": ""} for s, d in pairs]

    def inspect(self, c):
        return {**super().inspect(c), "Mounts": c.get("mounts", [])}

    def listed(self, c):
        return {**super().listed(c), "Mounts": c.get("mounts", [])}

    def spawn(self, c):
        inside, outside = ["link set lo up"], []
        for i, (name, n) in enumerate(c["networks"].items()):
            veth = f"ve{self.veths}"
            self.veths += 1
            inside += [f"link add eth{i} address {n['MacAddress']} type veth peer name {veth} netns {os.getpid()}",
                       f"addr add {n['IPAddress']}/16 dev eth{i}", f"link set eth{i} up"]
            outside.append(f"link set {veth} master {self.networks[name]['bridge']} up\n")
        lines = "\n".join(inside)
        p = subprocess.Popen(["unshare", "--net", "sh", "-c", f"ip -batch - <<END && echo up && exec sleep infinity\n{lines}\nEND\n"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if p.stdout.readline() != b"up\n":
            raise OSError(f"the process of {c['name']} ended with {p.wait()}")
        p.stdout.close()
        run(["ip", "-batch", "-"], input="".join(outside))
        c["pid"] = p.pid

    def find(self, name):
        return self.containers.get(name) or next((c for c in self.containers.values() if c["name"] == name), None)

    async def answer_later(self, method, path, body):
        """(status, value), or None: the simpler engine knows."""
        path, _, query = path.partition("?")
        path = path[path.index("/", 1):] if path.startswith("/v1.") else path
        query = {k: v[0] for k, v in urllib.parse.parse_qs(query).items()}
        parts = path.strip("/").split("/")
        if path == "/images/create":
            async with self.pulling:  # dockerd, too, gets a layer once for all who want it
                await asyncio.to_thread(self.pull, query["fromImage"], query["tag"])
            return 200, {"status": "Pull complete"}
        if parts[0] == "images" and parts[-1] == "json" and len(parts) > 2:
            image = self.images.get("/".join(parts[1:-1]))
            return (200, image) if image else (404, {"message": "No such image"})
        if path == "/networks/create":
            name = json.loads(body)["Name"]
            return (409, {"message": "exists"}) if name in self.networks else (201, {"Id": self.make_network(name), "Warning": ""})
        if parts[0] == "networks" and len(parts) == 2:
            n = self.networks.get(parts[1])
            return (200, n) if n else (404, {"message": f"network {parts[1]} not found"})
        if parts[0] == "networks" and parts[-1] == "connect":
            self.attach(self.find(json.loads(body)["Container"]), parts[1])
            return 200, {}
        if path == "/containers/create":
            return 201, {"Id": self.create(query["name"], json.loads(body)), "Warnings": []}
        if parts[0] == "containers" and parts[-1] == "start":
            c = self.find(parts[1])
            await asyncio.to_thread(self.spawn, c)
            self.happen({"id": c["id"], "action": "start"})
            return 204, b""
        return None

    def end(self):
        for c in self.containers.values():
            if c["pid"]:
                os.kill(c["pid"], signal.SIGKILL)


class Host:
    """Network namespace, engine, agent. The registry is reached at `registry` over the bridge `core` of this namespace."""

    def __init__(self, lab, number, core, registry):
        self.lab, self.number, self.dir = lab, number, f"/run/h{number}"
        os.makedirs(self.dir)
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        self.uplink = f"up{number}"
        run(["ip", "link", "add", self.uplink, "type", "veth", "peer", "name", "core", "netns", str(self.holder.pid)])
        run(["ip", "link", "set", self.uplink, "master", core, "up"])
        run([*self.enter, "ip", "addr", "add", f"10.99.1.{number + 1}/16", "dev", "core"])
        run([*self.enter, "ip", "link", "set", "core", "up"])
        self.engine = Fake(f"{lab.dir}/logs", f"{self.dir}/docker.sock", f"engine{number}", __file__)
        self.agent = Service(f"tbnoded{number}", f"{lab.dir}/logs/tbnoded{number}.log")
        self.registry = registry

    def start(self):
        self.engine.start(self.enter)
        config = self.lab.tbnoded.write_config({
            "registry": f"http://{self.registry}", "docker": f"unix://{self.dir}/docker.sock", "run-dir": f"{self.dir}/run",
            "state-dir": f"{self.dir}/state", "socket": f"{self.dir}/tbnoded.sock", "tmcd": "off"}, path=f"{self.dir}/tbnoded.conf")
        self.agent.spawn([*self.enter, f"{self.lab.install()}/tbnoded", "--config", config],
                         probe=lambda: os.path.exists(f"{self.dir}/tbnoded.sock"))
        return self

    def tbnode(self, *args):
        return self.lab.tbnode("--socket", f"{self.dir}/tbnoded.sock", *args)

    def stop(self):
        self.agent.kill()
        self.engine.stop()
        self.holder.kill()
        self.holder.wait()


if __name__ == "__main__":
    engine = RunEngine()
    signal.signal(signal.SIGTERM, lambda *_: (engine.end(), os._exit(0)))
    asyncio.run(serve_engine(engine, sys.argv[1]))
