# SPDX-License-Identifier: LGPL-2.1-or-later
"""The laboratory: a real Docker engine and real registries for a test, which leave no trace on the host.

How a test file looks (tests/engine/test_lab.py is a complete example):

    import unittest
    import lab                                   # the test's own folder is on sys.path

    def setUpModule():                           # one laboratory per file: starting it costs seconds
        global L
        L = lab.Lab.get()
        lab.images.busybox(L).push(L.hub, "library/busybox:1.36")

    class Augment(unittest.TestCase):
        def test_first_request_builds(self):
            L.tbnoded.start()                                  # generated config; returns when it is ready
            r = L.tbnode("augment", "--json", "busybox:1.36")  # Result: rc, out, err, json()
            self.assertEqual(r.rc, 0, r)
            self.assertEqual(r.json()["cache"], "miss")

    if __name__ == "__main__":
        lab.main()                               # lab.main(debian=True) when it uses images.debian(), and
                                                 # layers=[...] for layers of Debian packages (labkit/packages.py)

Run it by hand, as root:  TBNODE_BUILD_DIR=build tests/engine/test_lab.py [-k PATTERN] [--shell] [--keep]
(--shell gives an interactive shell in the laboratory after setUpModule instead of running the tests).

What one gets (everything starts when first used):
    L.dir, L.build, L.source, L.tmp(name)   paths; L.dir is on disk and world readable
    L.docker(*args)          Debian's client with the private dockerd (socket: the default /var/run/docker.sock)
    L.dockerd                .start() .stop() .restart() .kill() .pid .request(method, path, body)
    L.local                  plain http docker-registry on 127.0.0.1:5000, deleting enabled
    L.hub                    plays Docker Hub: TLS, tokens; registry-1.docker.io, auth.docker.io and docker.io lead to
                             it and its CA is trusted, so plain `busybox:1.36` works everywhere. Anonymous pull of all
                             but private/*; hub.add_user(); registries have .request() .tags() .manifest()
                             .corrupt(digest) .accesses() .put_manifest() .put_blob() .stop() .start()
    L.tbnoded                the agent: .start(config={...}, env={...}) .stop() .kill() .restart() .log() .run(...)
    L.tbnode(*args)          the CLI;  L.program("tbnode-registry", *args) any program of the build
    L.skopeo(*args), L.umoci(*args), L.run(argv, check=True, timeout=60, input=..., env=...)
    L.links(), L.qdiscs(), L.ifbs(), L.iptables(), L.nft(), L.traces()   what is in the sandbox's kernel now;
                             L.traces() lists everything of ours: [] is the state that a clean-up must reach
    L.container_pid(name), L.nsrun(pid, *argv), L.bandwidth(src_pid, dst_pid, dst_ip) -> bit/s by iperf3
    lab.images.scratch(L) busybox(L) debian(L) build(L, layers, config)   -> Image: .push(registry, "name:tag")
    lab.wait_for(function, timeout, what)   for what has no event to wait on
    lab.reader(fd)           until(text) for what a terminal shows

The file re-executes itself in new net, mount and pid namespaces: /run is a private tmpfs, /etc and /var/lib are
overlays (write what you like), lo is up, HOME is private. The process outside compares the host before and after
(links, qdiscs, rules, mounts, cgroups, processes, files) as one more test case, and removes the laboratory also when
the test is killed. Needs root; without it the file is skipped (exit 77) and says why.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from labkit import images  # noqa: E402,F401
from labkit.core import Lab  # noqa: E402,F401
from labkit.process import LabError, Result, one_line, reader, wait_for  # noqa: E402,F401
from labkit.sandbox import main  # noqa: E402,F401
