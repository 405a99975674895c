#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Levels buildenv and full on a real Debian: apt installs from a mirror in the laboratory, with both docker builders; a
release that only the archive has; who the image's user is before and after."""

import json
import os
import unittest

import lab
from augment_driver import Driver
from labkit.aptmirror import AptMirror
from labkit.fixture import PATH, Fixture, Store

L = None
D = None
M = None
S = None

# As docker.io/library/debian has it.
SOURCES = b"""Types: deb
# http://snapshot.debian.org/archive/debian/20231218T000000Z
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /etc/apt/lab.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /etc/apt/lab.gpg
"""
OLD_SOURCES = b"""# in one line each
deb http://deb.debian.org/debian stretch main
deb http://security.debian.org/ stretch/updates main
deb http://deb.debian.org/debian stretch-updates main
"""
# As docker.io/library/ubuntu has them: 23.04 in the old form, with a mirror of a country beside it; 24.10 in the new one.
UBUNTU_2304 = b"""# See http://help.ubuntu.com/community/UpgradeNotes
deb http://archive.ubuntu.com/ubuntu/ lunar main restricted
deb http://us.archive.ubuntu.com/ubuntu/ lunar-updates main restricted
# deb-src http://archive.ubuntu.com/ubuntu/ lunar main restricted
deb http://security.ubuntu.com/ubuntu/ lunar-security main restricted
"""
UBUNTU_2410 = b"""Types: deb
URIs: http://archive.ubuntu.com/ubuntu/
Suites: oracular oracular-updates oracular-backports
Components: main universe restricted multiverse
Signed-By: /etc/apt/lab.gpg

Types: deb
URIs: http://security.ubuntu.com/ubuntu/
Suites: oracular-security
Components: main universe restricted multiverse
Signed-By: /etc/apt/lab.gpg
"""
HELLO = "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 3; }\n"


def setUpModule():
    global L, D, M, S
    L = lab.Lab.get()
    L.dockerd.ensure()
    layers = json.loads(os.environ["TBNODE_LAB_FIXTURES"])
    M = AptMirror(L, layers["mirror"], "10.200.0.1")
    S = Store(L.local, layers)
    D = Driver(L)


def tearDownModule():
    if D:
        assert D.close() == 0
    if M:
        M.close()


def push(name, version, sources, config=None, **files):
    """A Debian with these mirrors, which it reaches through the laboratory's proxy."""
    place = "etc/apt/sources.list.d/debian.sources" if sources.startswith(b"Types") else "etc/apt/sources.list"
    extra = {"etc/apt/sources.list": b"", place: sources, "etc/apt/lab.gpg": M.key, "etc/debian_version": version.encode() + b"\n",
             "etc/apt/apt.conf.d/99lab": f'Acquire::http::Proxy "{M.url}";\nAcquire::Languages "none";\n'.encode(),
             # as in the official images
             "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": b"force-unsafe-io\n",
             "etc/apt/apt.conf.d/docker-no-languages": b'Acquire::Languages "none";\n',
             "etc/apt/apt.conf.d/docker-gzip-indexes": b'Acquire::GzipIndexes "true";\n', **files}
    config = {"Cmd": ["bash"], "Env": [PATH, "A=b c"], **(config or {})}
    return S.push(Fixture(name, "glibc, usrmerge", "bash", ["debian", extra], config))


def live():
    M.clear()
    M.publish("deb.debian.org/debian", "bookworm")
    M.publish("deb.debian.org/debian", "bookworm-updates", packages=False)
    M.publish("deb.debian.org/debian-security", "bookworm-security", packages=False)


def ended(signed=True):
    """Only the archive has it."""
    M.clear()
    M.publish("archive.debian.org/debian", "bookworm", signed=signed)
    M.publish("archive.debian.org/debian-security", "bookworm-security", packages=False, signed=signed)


def in_image(image, *argv, options=(), check=True):
    return L.docker("run", "--rm", "-i", *options, "--entrypoint", argv[0], image, *argv[1:], check=check)


class Builds(unittest.TestCase):
    USER = {"User": "www-data:adm", "WorkingDir": "/srv", "Entrypoint": ["/bin/sh", "-c", "id; pwd; echo \"$A $HOME $0 $*\"", "me"],
            "Cmd": ["x  y"], "StopSignal": "SIGUSR1"}

    def check_image(self, base, image, level):
        """gcc works, packages are there, main is what it was, and nothing else has changed."""
        r = L.docker("run", "--rm", "-i", "--user", "0", "--entrypoint", "/bin/sh", image, "-c",
                     "cd /tmp && gcc -x c -o hello - && ./hello", input=HELLO, check=False)
        self.assertEqual((r.rc, r.out), (3, "compiled\n"), r)
        self.assertIn("g++", in_image(image, "/bin/sh", "-c", "command -v g++ make flex byacc git patch wget sudo").out)
        wanted = in_image(image, "dpkg-query", "-W", "-f", "${Package}\n").out.split()
        for package in ("libssl-dev", "libpcap-dev", "file"):
            self.assertIn(package, wanted)
        self.assertNotIn("libboost-dev", wanted)  # this mirror has none
        if level == "full":
            self.assertIn("OpenSSH", L.docker("run", "--rm", "--entrypoint", "/usr/sbin/sshd", image, "-V", check=False).err)
            for package in ("rsyslog", "iproute2", "iputils-ping", "net-tools", "less", "psmisc"):
                self.assertIn(package, wanted)
        else:
            self.assertNotIn("openssh-server", wanted)
        L.docker("pull", "-q", base)
        plain = [L.docker("run", "--rm", "--hostname", "h", i, check=False) for i in (base, image)]
        self.assertEqual((plain[0].rc, plain[0].out, plain[0].err), (plain[1].rc, plain[1].out, plain[1].err))
        self.assertIn("uid=33(www-data) gid=4(adm)", plain[1].out)
        left = in_image(image, "/bin/sh", "-c", "ls /var/lib/apt/lists /var/cache/apt/archives/*.deb /etc/apt/sources.list.d; "
                        "cat /etc/apt/sources.list /etc/apt/sources.list.d/*; ls -d /tbnode/bin/*", check=False).out
        self.assertNotIn(".tbnode", left)
        self.assertNotIn("Packages", left)
        self.assertIn("/tbnode/bin/tmcc", left)
        self.assertIn(SOURCES.decode(), left)
        _, seen = L.dockerd.request("GET", f"/images/{image}/json")
        for key, value in self.USER.items():
            if key != "Entrypoint":
                self.assertEqual(seen["Config"][key], value)
        self.assertEqual(seen["Config"]["Labels"]["org.tbnode.level"], level)

    def test_buildenv_by_the_classic_builder(self):
        live()
        base = push("debian-12", "12.5", SOURCES, self.USER)
        r = D("docker", base, level="buildenv")
        self.assertNotIn("error", r)
        self.assertEqual(M.hosts(), ["deb.debian.org"])
        self.assertEqual(r["result"]["facts"]["files"]["packages"], "apt")
        self.assertIn('USER "0"\n', r["result"]["dockerfile"])
        self.assertIn('USER "www-data:adm"\n', r["result"]["dockerfile"])
        L.docker("pull", "-q", r["result"]["image"])
        self.check_image(base, r["result"]["image"], "buildenv")

    def test_full_by_buildkit_of_a_release_that_only_the_archive_has(self):
        ended()
        base = push("debian-ended", "12.5", SOURCES, self.USER)
        directory = L.tmp("context")
        r = D("context", base, level="full", builder="docker", directory=directory)
        self.assertNotIn("error", r)
        self.assertEqual(sorted(os.listdir(directory)), ["Dockerfile", "basic.tar.gz", "core.tar.gz"])
        L.docker("build", "-q", "-t", "full:1", directory, env={"DOCKER_BUILDKIT": "1"}, timeout=600)
        self.assertEqual(M.hosts(), ["archive.debian.org"])
        self.check_image(base, "full:1", "full")


class Sources(unittest.TestCase):
    """The script of the Dockerfile, with one small package in place of the lists."""

    def script(self, base):
        r = D("context", base, level="buildenv", builder="docker", directory=L.tmp("context"))
        self.assertNotIn("error", r)
        text = r["result"]["dockerfile"]
        run = text[text.index("RUN [") + 4:]
        line = run[:run.index("\n\n")].replace("\\\n", "")
        script = json.loads(line)[2]
        first = script.index("ca-certificates gcc")
        script = script.replace(script[first:script.index(" $wanted", first)], "less")
        first = script.index("libtool-bin libtool")
        return script.replace(script[first:script.index(";", first)], "patch nothing-like-it")

    def run_script(self, name, version, sources, **files):
        base = push(name, version, sources, **files)
        return L.docker("run", "--rm", base, "/bin/sh", "-euc",
                        self.script(base) + "\nless --version; cat /etc/apt/sources.list /etc/apt/sources.list.d/* || ls /etc/apt/sources.list.d\n",
                        check=False, timeout=300)

    def test_old_form_and_an_archive_whose_keys_have_expired(self):
        M.clear()
        M.publish("archive.debian.org/debian", "stretch", signed=False)
        M.publish("archive.debian.org/debian-security", "stretch/updates", packages=False, signed=False)
        r = self.run_script("debian-stretch", "9.13", OLD_SOURCES)
        self.assertEqual(r.rc, 0, r)
        self.assertIn("not verified", r.out)
        self.assertIn("\nless 5", r.out)
        self.assertIn(OLD_SOURCES.decode(), r.out)
        self.assertNotIn(".tbnode", r.out)
        self.assertEqual(M.hosts(), ["archive.debian.org"])

    def test_ubuntu_whose_releases_are_with_the_old_ones(self):
        for name, codename, sources in (("23.04", "lunar", UBUNTU_2304), ("24.10", "oracular", UBUNTU_2410)):
            with self.subTest(name):
                M.clear()
                for suite in ("", "-updates", "-security", "-backports"):
                    M.publish("old-releases.ubuntu.com/ubuntu", codename + suite, packages=not suite)
                r = self.run_script(f"ubuntu-{name}", "bookworm/sid", sources, **{
                    "etc/os-release": f'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="{name}"\n'.encode(), "etc/apt/trusted.gpg.d/lab.gpg": M.key})
                self.assertEqual(r.rc, 0, r)
                self.assertIn("\nless 5", r.out)
                self.assertIn(sources.decode(), r.out)
                self.assertNotIn(".tbnode", r.out)
                self.assertEqual(M.hosts(), ["old-releases.ubuntu.com"])

    def test_unsigned_archive_of_a_newer_release_is_refused(self):
        ended(signed=False)
        r = self.run_script("debian-unsigned", "12.5", SOURCES)
        self.assertNotEqual(r.rc, 0)
        self.assertIn("is not signed", r.out + r.err)

    def test_a_foreign_source_that_is_gone(self):
        """The release is there: nothing is rewritten, what others no longer have is no reason to fail."""
        live()
        r = self.run_script("debian-foreign", "12.5", SOURCES, **{
            "etc/apt/sources.list.d/gone.list": b"deb [trusted=yes] http://gone.example.org/apt stable main\n"})
        self.assertEqual(r.rc, 0, r)
        self.assertIn("\nless 5", r.out)
        self.assertEqual(M.hosts(), ["deb.debian.org"])

    def test_no_mirror_at_all(self):
        M.clear()
        base = push("debian-nowhere", "12.5", SOURCES)
        before = L.local.all_tags()
        r = D("docker", base, level="buildenv")
        self.assertIn("the engine says:", r["error"]["message"])
        self.assertNotIn("\n", r["error"]["message"])
        # What is known about the base stays, as after any look at it.
        self.assertEqual([t for t in L.local.all_tags() if t not in before and (":k-" in t or t.endswith("-buildenv"))], [])


if __name__ == "__main__":
    lab.main(debian=True, layers=["debian", "mirror"])
