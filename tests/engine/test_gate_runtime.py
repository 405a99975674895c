#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode-runtime and an agent that ends, refuses or talks nonsense at any moment. No engine: the test plays dockerd, containerd
and the agent."""

import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import unittest

ID = "0123456789abcdef" * 4
RUNTIME = os.path.join(os.environ["TBNODE_BUILD_DIR"], "agent", "tbnode-runtime")
YES = b'{"ok": true}\n'


class Runtime(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="tbnode-gate-")
        self.addCleanup(self.directory.cleanup)
        top = self.directory.name
        self.socket_path = f"{top}/gate.sock"
        self.bundle, docker = f"{top}/{ID}", f"{top}/containers/{ID}"
        os.makedirs(self.bundle)
        os.makedirs(docker)
        self.write(f"{self.bundle}/init.pid", str(os.getpid()))
        self.write(f"{self.bundle}/config.json",
                   json.dumps({"mounts": [{"destination": "/etc/hosts", "source": f"{docker}/hosts"}]}))
        # Large: it does not fit into a socket's buffer.
        labels = {"tbnode.shape": "rate 1mbit", "other": "x" * 1000000}
        self.write(f"{docker}/config.v2.json", json.dumps({"Name": "/aa", "Config": {"Image": "i", "Labels": labels}}))
        self.write(f"{top}/runc", '#!/bin/sh\nread -r ignored </proc/self/status\ngrep ^SigIgn: /proc/self/status\necho "ran $*"\n')
        os.chmod(f"{top}/runc", 0o755)

    def write(self, path, text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def start(self, *settings):
        self.write(f"{self.directory.name}/conf",
                   "\n".join((f"run-dir={self.directory.name}", f"oci-runtime={self.directory.name}/runc", *settings)))
        p = subprocess.Popen([RUNTIME, f"--tbnode-config={self.directory.name}/conf", "start", ID], cwd=self.bundle, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: (p.kill(), p.communicate()))
        return p

    def agent(self):
        """A new agent, in the place of the one before."""
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        self.addCleanup(s.close)
        s.bind(self.socket_path + ".new")
        s.listen(8)
        os.rename(self.socket_path + ".new", self.socket_path)
        return s

    def request(self, c):
        text = b""
        while not text.endswith(b"\n"):
            part = c.recv(1 << 20)
            self.assertTrue(part, "the request ends early")
            text += part
        return json.loads(text)

    def answer(self, s, text):
        c, _ = s.accept()
        q = self.request(c)
        c.sendall(text)
        c.close()
        return q

    def started(self, p):
        out, err = p.communicate(timeout=30)
        self.assertEqual((0, ""), (p.returncode, err))
        self.assertIn(f"ran start {ID}", out)
        # What the real runtime would hand on to the container.
        ignored = int(out.split("SigIgn:")[1].split()[0], 16)
        self.assertEqual(0, ignored & 1 << signal.SIGPIPE - 1)

    def refused(self, p, *words):
        out, err = p.communicate(timeout=30)
        self.assertEqual((1, ""), (p.returncode, out), err)
        for w in words:
            self.assertIn(w, err)

    def test_yes(self):
        s, p = self.agent(), self.start()
        self.assertEqual("aa", self.answer(s, YES)["name"])
        self.started(p)

    def test_agent_ends_before_it_has_read(self):
        s, p = self.agent(), self.start()
        c, _ = s.accept()
        c.recv(10)
        s.close()
        c.close()  # the runtime is still writing
        self.answer(self.agent(), YES)
        self.started(p)

    def test_agent_is_reset(self):
        s, p = self.agent(), self.start()
        c, _ = s.accept()
        self.request(c)
        s.close()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()
        self.answer(self.agent(), YES)
        self.started(p)

    def test_agent_ends_within_its_answer(self):
        s, p = self.agent(), self.start()
        self.answer(s, YES[:5])
        s.close()
        self.answer(self.agent(), YES)
        self.started(p)

    def test_agents_that_end_again_and_again(self):
        s, p = self.agent(), self.start()
        for _ in range(20):
            c, _ = s.accept()
            s.close()
            c.close()
            s = self.agent()
        self.answer(s, YES)
        self.started(p)

    def test_no(self):
        s, p = self.agent(), self.start("gate=optional")
        self.answer(s, b'{"ok": false, "error": "no such shape: 10elephants"}\n')
        self.refused(p, "tbnode: no such shape: 10elephants")

    def test_nonsense(self):
        for text in (b"hello\n", b"[]\n", b"\n", b"x" * 20000):
            s, p = self.agent(), self.start()
            c, _ = s.accept()
            self.request(c)
            c.sendall(text)
            self.refused(p, "tbnode: ", "agent")
            s.close()
            c.close()


if __name__ == "__main__":
    unittest.main()
