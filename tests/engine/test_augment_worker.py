#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The worker through the real agent: what surrounds it, what it refuses, what it needs; that a crash at any point leaves
nothing or a complete image and a repeated request goes on; many requests at once."""

import concurrent.futures
import fcntl
import gzip
import hashlib
import io
import json
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import tarfile
import termios
import threading
import time
import unittest

import lab
from labkit.registry import Registry

L = None
SOURCE = "127.0.0.1:5005"  # the gate before the source
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
FILES = 590_000  # nearly as many as an image may have
TRANSFERS = "/var/lib/tbnode/transfers"


class Source(Registry):
    port = 5001
    host = "127.0.0.1:5001"


class Gate:
    """Passes connections to the source on. Stops all of them when `limit` bytes came from it, or each one by itself when
    `each` did. `slowly`: each one stands still for a while at its beginning."""

    def __init__(self):
        self.passed, self.limit, self.each, self.generation, self.slowly = 0, None, None, 0, False
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 5005))
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, limit, each=None):
        """Bytes from now on; None = all."""
        with self.changed:
            self.passed, self.limit, self.each = 0, limit, each
            self.changed.notify_all()

    def reached(self):
        return self.limit is not None and self.passed >= self.limit

    def wait(self):
        """Until the limit is reached."""
        lab.wait_for(self.reached, 30, f"{self.limit} bytes, there are {self.passed}")

    def cut(self):
        """Ends the connections there are, with what they have not passed on."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def _accept(self):
        while True:
            client = self.listener.accept()[0]
            try:
                source = socket.create_connection(("127.0.0.1", 5001))
            except OSError:
                client.close()
                continue
            for pair in ((client, source, False), (source, client, True)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, a, b, counted):
        own, generation, paused = 0, self.generation, False
        try:
            while data := a.recv(65536):
                if counted:
                    with self.changed:
                        own += len(data)
                        self.changed.wait_for(lambda: self.generation != generation or (
                            (self.limit is None or self.passed < self.limit) and (self.each is None or own <= self.each)))
                        if self.generation != generation:
                            break
                        self.passed += len(data)
                        self.changed.notify_all()
                        # Within the first MiB of a layer, whose rate decides whether it is kept.
                        paused = paused or (self.slowly and own > 400_000 and not self.changed.wait_for(
                            lambda: self.generation != generation, 0.8))
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def setUpModule():
    global L, S, G
    L = lab.Lab.get()
    S = L._add(Source(L, "source"))
    S.start()
    G = Gate()
    start_agent()


def tearDownModule():
    S.stop()


def start_agent(**config):
    L.tbnoded.start(config={"augment-jobs": "4", **config})


def tar_of(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def member(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)


def many_members(count, template="srv/%03d/some-file-with-a-usual-name-%06d.txt"):
    """As member() of each name, faster."""
    head = member(template % (0, 0))
    length, total = len(template % (0, 0)), sum(head[:148]) + sum(head[156:]) + 8 * 32 - sum(head[:100])
    rest, out = head[156:], []
    for i in range(count):
        name = (template % (i // 1000, i % 1000)).encode()
        out.append(b"%s%s%06o\0 %s" % (name, head[length:148], total + sum(name), rest))
    return b"".join(out) + END


def push(name, blobs, config=None, diff_ids=None, sizes=None, registry=None):
    """Pushes NAME:1 of layer blobs as they are."""
    registry = registry or S
    layers = []
    for i, blob in enumerate(blobs):
        digest = registry.put_blob(name, blob)
        layers.append({"mediaType": LAYER, "digest": digest, "size": (sizes or {}).get(i, len(blob))})
    if diff_ids is None:
        diff_ids = ["sha256:" + hashlib.sha256(gzip.decompress(b)).hexdigest() for b in blobs]
    data = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"], **(config or {})},
                       "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    registry.put_manifest(name, "1", {
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": CONFIG, "size": len(data), "digest": registry.put_blob(name, data)}})


def random_layers(count, size, seed):
    r = random.Random(seed)
    return [gzip.compress(tar_of({f"data{i}": r.randbytes(size)}), 1, mtime=0) for i in range(count)]


def workers():
    """Process ids of the workers that have a job: they can't be looked into any more."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if not f.read().split(b"\0")[0].endswith(b"/tbnode-augment-worker"):
                    continue
            if status(pid).get("Seccomp") == "2" or "libasan" in L.run(["ldd", f"{L.install()}/tbnoded"]).out:
                found.append(int(pid))
        except OSError:
            pass
    return found


def one_worker():
    """The worker of the one job; one of a job before may still be on its way out."""
    lab.wait_for(lambda: len(workers()) == 1, 10, "one worker")
    return workers()


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict((x.split(":\t", 1) + [""])[:2] for x in f.read().splitlines())


def request(image, *args):
    return subprocess.Popen([f"{L.install()}/tbnode", "augment", "--json", *args, image], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def kept():
    """Bytes of broken-off downloads on disk."""
    return sum(os.path.getsize(f"{d}/{f}") for d, _, files in os.walk(TRANSFERS) for f in files if f.endswith(".part"))


def settle():
    """What has come is in the files."""
    last = -1
    while (now := kept()) != last:
        last = now
        time.sleep(0.1)
    return now


class Base(unittest.TestCase):
    def setUp(self):
        G.set(None)
        for service in (S, L.local):
            service.ensure()
        if not L.tbnoded.running:
            start_agent()

    def finished(self, p):
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 0, err)
        return json.loads(out)

    def failed(self, p, *words):
        out, err = p.communicate(timeout=60)
        self.assertEqual((p.returncode, out), (1, ""), err)
        self.assertEqual(len(err.splitlines()), 1, err)
        for word in words:
            self.assertIn(word, err)

    def check_complete(self, name, prefixes=("mirror/127.0.0.1_5005/", "augmented/127.0.0.1_5005/")):
        """Whatever tag is there, its image is whole."""
        for prefix in prefixes:
            for tag in L.local.tags(prefix + name):
                # The registry may still be at work for a client that is gone: it lists a tag before it gives it.
                lab.wait_for(lambda: L.local.request("HEAD", f"/v2/{prefix}{name}/manifests/{tag}", headers={
                    "Accept": MANIFEST})[0] == 200, 10, f"{prefix}{name}:{tag}")
                m, _ = L.local.manifest(prefix + name, tag)
                for blob in [m["config"], *m["layers"]]:
                    self.assertEqual(L.local.request("HEAD", f"/v2/{prefix}{name}/blobs/{blob['digest']}")[0], 200)

    def augmented(self, name):
        return L.local.tags(f"augmented/127.0.0.1_5005/{name}")


class Sandbox(Base):
    def test_of_a_running_worker(self):
        push("sandboxed", random_layers(1, 4_000_000, 1))
        before = set(os.listdir(TRANSFERS)) if os.path.exists(TRANSFERS) else set()
        G.set(1_000_000)
        p = request(f"{SOURCE}/sandboxed:1")
        G.wait()
        pid, = one_worker()
        s = status(pid)
        uid = str(L.run(["id", "-u", "nobody"]).out.strip())
        self.assertEqual(s["Uid"].split(), [uid] * 4)
        self.assertEqual(s["Groups"].split(), [])
        self.assertEqual(s["NoNewPrivs"], "1")
        for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(s[caps], 16), 0, caps)
        with open(f"/proc/{pid}/limits", encoding="utf-8") as f:
            limits = {x[:26].strip(): x[26:].split()[0] for x in f.read().splitlines()[1:]}
        self.assertEqual(limits["Max open files"], "256")
        self.assertEqual(limits["Max core file size"], "0")
        self.assertEqual(limits["Max processes"], "4096")
        for limit in ("Max cpu time", "Max file size"):
            self.assertNotEqual(limits[limit], "unlimited", limit)
        if "libasan" not in L.run(["ldd", f"{L.install()}/tbnoded"]).out:
            self.assertEqual(s["Seccomp"], "2")
            self.assertNotEqual(limits["Max address space"], "unlimited")
        # It can write in one directory, which is its own, and holds no file beyond.
        own, = set(os.listdir(TRANSFERS)) - before
        self.assertEqual(os.stat(f"{TRANSFERS}/{own}").st_mode & 0o7777, 0o700)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            self.assertTrue(target.startswith(("pipe:", "socket:", "anon_inode:", "/memfd:docker-config",
                                               f"{TRANSFERS}/{own}")), target)
        G.set(None)
        self.assertEqual(self.finished(p)["cache"], "miss")
        lab.wait_for(lambda: not workers(), 10, "the worker's end")
        self.assertFalse(os.path.exists(f"{TRANSFERS}/{own}"))

    def peak(self, name):
        """kB that the worker had at most, and how its request ended."""
        p, peak = request(f"{SOURCE}/{name}:1"), 0
        while p.poll() is None:
            for pid in workers():
                try:
                    peak = max(peak, int(status(pid)["VmHWM"].split()[0]))
                except (OSError, KeyError):
                    pass
            time.sleep(0.005)
        self.assertGreater(peak, 0)
        print(f"# {name}: peak of the worker {peak} kB", flush=True)
        if "libasan" not in L.run(["ldd", f"{L.install()}/tbnoded"]).out:
            self.assertLess(peak, 64 * 1024, name)
        return p

    def test_memory_does_not_follow_the_size(self):
        """Few large layers, one of very many files: the peak stays below 64 MB."""
        push("large", random_layers(3, 40_000_000, 2))
        push("many-files", [gzip.compress(many_members(FILES), 1)])
        for name in ("large", "many-files"):
            self.finished(self.peak(name))

    def test_memory_of_layers_at_once(self):
        """All come at the same time, together with as many files as an image may have; what has no room is read again later.
        Two that can't be held beside each other are refused, whichever way they come."""
        usual, short = "/%03d/some-file-with-a-usual-name-%06d.txt", "/%03d/%06d"
        cases = {
            "sixths": ([many_members(FILES // 6, d + usual) for d in "abcdef"], None),
            "in-turn": ([many_members(350_000, "a" + short), many_members(350_000, "a" + short) + END,
                         many_members(350_000, "a" + short) + 2 * END], None),
            "twice": ([many_members(FILES, "a" + usual), many_members(FILES, "a" + usual) + END], "and the layers below it"),
        }
        for name, (layers, why) in cases.items():
            with self.subTest(name):
                push(f"at-once-{name}", [gzip.compress(x, 1) for x in layers])
                p = self.peak(f"at-once-{name}")
                if why:
                    self.failed(p, "is refused", why)
                else:
                    self.assertEqual(self.finished(p)["cache"], "miss")


class Hostile(Base):
    def test_layers(self):
        zeros = bytes(1 << 20)
        good = gzip.compress(tar_of({"etc/x": b"1"}), 1, mtime=0)
        bad_sum = bytearray(tar_of({"x": b"1"}))
        bad_sum[148] ^= 1
        many = gzip.compress(many_members(1_000_000), 1)
        bomb = gzip.compress(member("zeros", size=1 << 30) + zeros * 1024 + END, 9)
        endless = gzip.compress(member("x", size=1 << 40) + zeros, 1)
        cases = {
            "bomb": ([bomb], "more than 500 times its size"),
            "million": ([many], "more than"),
            "absolute": ([gzip.compress(member("/etc/x") + END)], "absolute path"),
            "dotdot": ([gzip.compress(member("a/../../x") + END)], "leads out of the image"),
            "checksum": ([gzip.compress(bytes(bad_sum))], "broken"),
            "cut": ([gzip.compress(tar_of({"x": b"1" * 4000})[:1500])], "ends too early"),
            "cut-gzip": ([good[:-20]], ""),
            "endless": ([endless], "ends too early"),
            "loop": ([gzip.compress(member("x", tarfile.SYMTYPE, link="x") + member("x/y") + END)], "leads nowhere"),
            "hard-link": ([gzip.compress(member("x", tarfile.LNKTYPE, link="../../etc/shadow") + END)], ""),
            "twice": ([gzip.compress(member("x") + member("./x") + END)], "is there twice"),
        }
        for name, (blobs, why) in cases.items():
            with self.subTest(name):
                push(f"hostile-{name}", blobs, diff_ids=["sha256:" + hashlib.sha256(name.encode()).hexdigest()])
                self.refused(f"hostile-{name}", f"layer sha256:{hashlib.sha256(blobs[0]).hexdigest()} is refused", why)
        with self.subTest("wrong diff_id"):
            push("hostile-diff", [good], diff_ids=["sha256:" + 64 * "0"])
            self.refused("hostile-diff", "the image's configuration says")
        # What is wrong is only seen when all layers have come.
        with self.subTest("in our place"):
            push("hostile-ours", [gzip.compress(tar_of({"tbnode/init": b"x"}))])
            self.refused("hostile-ours", "/tbnode already")
        with self.subTest("wrong diff_id of a layer that is there already"):
            push("hostile-shared", [good])
            self.finished(request(f"{SOURCE}/hostile-shared:1"))
            before = self.names("hostile-shared")
            push("hostile-shared", [good], diff_ids=["sha256:" + 64 * "0"])
            self.failed(request(f"{SOURCE}/hostile-shared:1"), "the image's configuration says")
            self.assertEqual(self.names("hostile-shared"), before)

    def names(self, name):
        """Every tag, and what it names."""
        return {f"{prefix}{name}:{tag}": L.local.manifest(prefix + name, tag)[1]
                for prefix in ("mirror/127.0.0.1_5005/", "augmented/127.0.0.1_5005/") for tag in L.local.tags(prefix + name)}

    def refused(self, name, *words):
        self.failed(request(f"{SOURCE}/{name}:1"), *words)
        self.assertEqual(self.names(name), {})
        self.assertEqual(workers(), [])

    def test_lying_sizes(self):
        for name, change in (("larger", 1), ("smaller", -1)):
            blob, = random_layers(1, 100_000, 3)
            # The registry checks no sizes; the manifest says another one than the blob has.
            push(f"size-{name}", [blob], sizes={0: len(blob) + change})
            self.refused(f"size-{name}", hashlib.sha256(blob).hexdigest())

    def test_device_nodes_are_taken_for_what_they_are(self):
        """An image may have them, as Docker's own do: nothing is made of them here."""
        push("devices", [gzip.compress(member("dev/null", tarfile.CHRTYPE) + member("dev/sda", tarfile.BLKTYPE) + END)])
        self.assertEqual(self.finished(request(f"{SOURCE}/devices:1"))["cache"], "miss")


class Crash(Base):
    def campaign(self, name, kill, repair, seed, slowly=False):
        """Kills at several points of one job, which goes on each time; then it is complete."""
        G.slowly = slowly
        layers = random_layers(3, 4_000_000, seed)
        total, before = sum(map(len, layers)), kept()
        push(name, layers)
        spent = 0
        for part in (0.02, 0.4, 0.3):
            G.set(int(total * part))
            p = request(f"{SOURCE}/{name}:1")
            lab.wait_for(lambda: G.reached() or p.poll() is not None, 30, f"{G.limit} bytes, there are {G.passed}")
            if p.poll() is None:
                settle()
                kill(p)
            out, err = p.communicate(timeout=60)
            with G.changed:
                spent += G.passed
            repair()
            if p.returncode == 0:
                break  # what the killed one had sent was all that was missing
            self.assertEqual((out, len(err.splitlines())), ("", 1), err)
            self.assertEqual(self.augmented(name), [])
            self.assertEqual(workers(), [])
            self.check_complete(name)
        G.set(None)
        G.slowly = False
        result = self.finished(request(f"{SOURCE}/{name}:1"))
        spent += G.passed
        self.check_complete(name)
        self.assertIn("1-basic", self.augmented(name))
        self.assertEqual(kept(), before)
        return result, spent, total

    def test_worker(self):
        result, spent, total = self.campaign("crash-worker", lambda p: [os.kill(x, signal.SIGKILL) for x in workers()],
                                             lambda: None, 11, slowly=True)
        # Nothing that was there came again, but for what was in the pipes at each kill.
        self.assertGreater(result["bytes"]["resumed"], 0)
        self.assertLess(spent, total * 1.5)

    def test_agent(self):
        def kill(_p):
            L.tbnoded.kill()
            lab.wait_for(lambda: not workers(), 10, "the worker's end")

        result, spent, total = self.campaign("crash-agent", kill, start_agent, 12, slowly=True)
        self.assertGreater(result["bytes"]["resumed"], 0)
        self.assertLess(spent, total * 1.5)

    def test_source(self):
        def kill(_p):
            S.kill()
            G.cut()

        self.campaign("crash-source", kill, S.start, 13)

    def test_local_registry(self):
        def kill(_p):
            L.local.kill()
            G.set(None)  # what comes can't be put anywhere

        self.campaign("crash-local", kill, L.local.start, 14)

    def test_worker_at_any_time(self):
        """In small steps through a short job: reading, building, pushing."""
        layers = random_layers(1, 2000, 15)
        for i in range(24):
            name = f"any-{i}"
            push(name, layers, {"Labels": {"i": str(i)}})
            p = request(f"{SOURCE}/{name}:1")
            end = time.monotonic() + 10
            while p.poll() is None and not (alive := workers()) and time.monotonic() < end:
                time.sleep(0.0005)
            time.sleep(0.002 * (i % 12))
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            p.communicate(timeout=60)
            self.check_complete(name)
            first = self.augmented(name)
            self.assertIn(len(first), (0, 1, 2))
            self.finished(request(f"{SOURCE}/{name}:1"))
            self.assertEqual(len(self.augmented(name)), 2)

    def test_worker_of_a_base_in_the_registry_at_any_time(self):
        """The upload is opened before it is known what goes up: whatever a killed worker leaves open is nobody's image."""
        layers = random_layers(1, 2000, 16)
        for i in range(12):
            name = f"local-any-{i}"
            push(name, layers, {"Labels": {"i": str(i)}}, registry=L.local)
            p = request(f"{L.local.host}/{name}:1")
            end = time.monotonic() + 10
            while p.poll() is None and not (alive := workers()) and time.monotonic() < end:
                time.sleep(0.0005)
            time.sleep(0.001 * i)
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            p.communicate(timeout=60)
            repository = f"augmented/127.0.0.1_5000/{name}"
            self.assertIn(len(L.local.tags(repository)), (0, 1, 2))
            self.check_complete(name, ("augmented/127.0.0.1_5000/",))
            self.finished(request(f"{L.local.host}/{name}:1"))
            self.assertEqual(len(L.local.tags(repository)), 2)


class Progress(Base):
    def terminal(self, name, part):
        """What a terminal of 80 columns gets, held at a part of the way; then stdout."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        G.set(part)
        p = subprocess.Popen([f"{L.install()}/tbnode", "augment", f"{SOURCE}/{name}:1"], stdout=subprocess.PIPE,
                             stderr=slave, text=True)
        os.close(slave)
        G.wait()
        seen = b""
        while seen.count(b"mirror:") < 3:  # slowly enough to be drawn
            G.set(part)
            if select.select([master], [], [], 0.15)[0]:
                seen += os.read(master, 65536)
        G.set(None)
        out = p.communicate(timeout=60)[0]
        self.assertEqual(p.returncode, 0)
        try:
            while data := os.read(master, 65536):
                seen += data
        except OSError:
            pass  # the other end is closed
        os.close(master)
        return seen.decode(), out

    def test_on_a_terminal(self):
        layers = random_layers(3, 4_000_000, 400)
        push("progress", layers)
        seen, out = self.terminal("progress", 300_000)
        hexes = [hashlib.sha256(x).hexdigest()[:12] for x in layers]
        self.assertTrue([h for h in hexes if h in seen], seen)
        for line in re.split(r"\r|\n|\x1b\[[AK]", seen):
            self.assertLess(len(line), 80)
            if line:
                self.assertRegex(line, r"^(resolve|facts|mirror|build|push)$|^([0-9a-f]{12}|mirror:) +[\d.]+ \w+ +of +"
                                       r"[\d.]+ \w+ +\d+% +[\d.]+ \w+/s$")
        self.assertTrue(seen.endswith("\x1b[K"), seen[-40:])  # nothing of it stays
        lines = out.splitlines()
        self.assertEqual(lines[0], f"{L.local.host}/augmented/127.0.0.1_5005/progress:1-basic")
        for start, words in (("  digest", "sha256:"), ("  source", f"{SOURCE}/progress:1@sha256:"),
                             ("  base", "no distribution"), ("  added", "init, sshd, syslog, a shell (payload "),
                             ("  level basic, builder native, cache miss", "mirror "), ("  bytes", "MB downloaded")):
            self.assertTrue([x for x in lines if x.startswith(start) and words in x], (start, out))

    def test_without_a_terminal(self):
        push("quiet", random_layers(1, 300_000, 401))
        r = L.tbnode("augment", f"{SOURCE}/quiet:1")
        self.assertEqual((r.rc, r.err), (0, ""))
        self.assertNotIn("\x1b", r.out)
        hit = L.tbnode("augment", f"{SOURCE}/quiet:1").out
        self.assertIn("cache hit", hit)
        self.assertNotIn("bytes", hit)
        again = L.tbnode("augment", "--json", f"{SOURCE}/quiet:1")
        self.assertEqual((again.err, json.loads(again.out)["cache"]), ("", "hit"))


class Many(Base):
    def test_sixty_clients(self):
        """60 different images at once, no failure, never more workers than are allowed."""
        for i in range(60):
            push(f"many-{i}", random_layers(1, 3000, 100 + i), {"Labels": {"i": str(i)}})
        most, over = [0], threading.Event()

        def watch():
            while not over.is_set():
                most[0] = max(most[0], len([x for x in workers() if os.path.exists(f"/proc/{x}")]))
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            clients = [request(f"{SOURCE}/many-{i}:1") for i in range(60)]
            results = [self.finished(p) for p in clients]
        finally:
            over.set()
            watcher.join()
        self.assertEqual(len({r["digest"] for r in results}), 60)
        self.assertEqual({r["cache"] for r in results}, {"miss"})
        self.assertGreater(most[0], 1)
        self.assertLessEqual(most[0], 4)
        for i in range(60):
            self.assertEqual(len(self.augmented(f"many-{i}")), 2)

    def test_one_image_is_made_once(self):
        """Whoever asks: its layer is read once, and all get the same."""
        push("once", random_layers(1, 500_000, 200))
        digest = S.manifest("once", "1")[0]["layers"][0]["digest"]
        G.set(100_000)
        clients = [request(f"{SOURCE}/once:1") for _ in range(8)]
        G.wait()
        one_worker()
        G.set(None)
        results = [self.finished(p) for p in clients]
        self.assertEqual(len({r["digest"] for r in results}), 1)
        self.assertEqual(len([a for a in S.accesses() if a[0] == "GET" and digest in a[1]]), 1)

    def test_one_key_has_one_image_whoever_builds(self):
        """The key does not say who shall make it: the other builder waits, and takes what is there then."""
        push("whoever", random_layers(1, 500_000, 201))
        digest = S.manifest("whoever", "1")[0]["layers"][0]["digest"]
        G.set(100_000)
        native = request(f"{SOURCE}/whoever:1")
        G.wait()
        docker = request(f"{SOURCE}/whoever:1", "--builder", "docker")
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["jobs"] == 2, 60, "both requests")
        G.set(None)
        native, docker = self.finished(native), self.finished(docker)
        self.assertEqual((native["cache"], docker["cache"], docker["digest"], docker["builder"]),
                         ("miss", "hit", native["digest"], "native"))
        self.assertEqual(len([a for a in S.accesses() if a[0] == "GET" and digest in a[1]]), 1)

    def test_prune_waits_and_takes_nothing_of_it(self):
        """A job is under way; another one comes while prune waits."""
        push("pruned", random_layers(1, 500_000, 202))
        push("pruned-too", random_layers(1, 5000, 203))
        G.set(100_000)
        job = request(f"{SOURCE}/pruned:1")
        G.wait()
        prune = [f"{L.install()}/tbnode", "prune", "--keep-days", "0", "--json"]
        # Of two, the one that comes second is refused at once: then the other one waits for the job.
        both = [subprocess.Popen(prune, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        lab.wait_for(lambda: [p for p in both if p.poll() is not None], 60, "the refusal of one")
        second, first = sorted(both, key=lambda p: p.poll() is None)
        self.assertIn("images are being removed already", second.communicate()[1])
        other = request(f"{SOURCE}/pruned-too:1")
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["jobs"] == 2, 60, "both requests")
        G.set(None)
        self.finished(job)
        removed = json.loads(first.communicate(timeout=60)[0])["removed"]
        self.assertEqual([i for i in removed if "/pruned" in i["repository"]], [])
        self.finished(other)
        for name in ("pruned", "pruned-too"):
            self.check_complete(name)
            self.assertIn("1-basic", self.augmented(name))

    def test_a_project_does_not_wait_for_all_of_another(self):
        """One project asks for more than there are workers; the other's first request is next."""
        for i in range(12):
            push(f"fair-{i}", random_layers(1, 200_000, 300 + i))
        G.set(None, each=50_000)
        busy = [request(f"{SOURCE}/fair-{i}:1", "--project", "busy") for i in range(11)]
        lab.wait_for(lambda: len(workers()) == 4, 10, "four workers")
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["jobs"] == 11, 10, "all requests")
        other = request(f"{SOURCE}/fair-11:1", "--project", "other")
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["jobs"] == 12, 10, "the other request")
        G.set(None)
        self.finished(other)
        waiting = len([p for p in busy if p.poll() is None])
        with concurrent.futures.ThreadPoolExecutor(11) as pool:
            list(pool.map(self.finished, busy))
        self.assertGreater(waiting, 0)


if __name__ == "__main__":
    lab.main()
