# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks of the agent share: an engine with the start gate, and N containers through its API."""

import concurrent.futures
import json
import time

import lab

IMAGE = "127.0.0.1:5000/bench/probe:1"
PARALLEL = 8  # starts at a time, as many as an experiment's set-up would ask for
LABELS = {"tbnode.shape": "rate 10mbit", "tbnode.firewall": "basic"}


class Host:
    def __init__(self):
        self.lab = lab.Lab.get()
        self.lab.dockerd.start(config={"runtimes": {"tbnode": {"path": f"{self.lab.install()}/tbnode-runtime"}}})
        self.lab.local.ensure()
        lab.images.scratch(self.lab).push(self.lab.local, "bench/probe:1")
        self.lab.docker("pull", "-q", IMAGE)
        self.lab.docker("network", "create", "lan0")
        self.engine = self.lab.docker("version", "-f", "{{.Server.Version}}").out.strip()

    def request(self, method, path, body=None, expect=(200, 201, 204)):
        status, answer = self.lab.dockerd.request(method, path, body, timeout=300)
        if status not in expect:
            raise lab.LabError(f"{method} {path}: {status} {answer}")
        return answer

    def each(self, ids, function):
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(function, ids))

    def create(self, n, labelled, runtime):
        """N created containers; their ids."""
        body = {"Image": IMAGE, "Labels": LABELS if labelled else {},
                "HostConfig": {"NetworkMode": "lan0", "Runtime": runtime}}
        return self.each(range(n), lambda i: self.request("POST", "/containers/create", body)["Id"])

    def start(self, ids):
        """Starts them, PARALLEL at a time; milliseconds until the last has started."""
        begin = time.perf_counter()
        self.each(ids, lambda i: self.request("POST", f"/containers/{i}/start"))
        return (time.perf_counter() - begin) * 1000

    def remove(self, ids):
        self.each(ids, lambda i: self.request("DELETE", f"/containers/{i}?force=1&v=1"))

    def status(self):
        return self.lab.tbnode("status", "--json").json()

    def nodes(self):
        return self.lab.tbnode("ps", "--json").json()["nodes"]

    def wait_configured(self, n):
        lab.wait_for(lambda: sum(1 for x in self.nodes() if x["state"] == "configured") == n, 120,
                     f"{n} configured nodes")

    def events(self):
        return [json.loads(x) for x in self.lab.tbnode("events", "--json").out.splitlines()]
