#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Levels buildenv and full on the RPM families and on Alpine: a real dnf, also by its name yum, installs from mirrors in the
laboratory, with the repository files that the images of Fedora, CentOS, AlmaLinux and Amazon Linux have, also where only
archives are left. microdnf and apk, which Debian has not, are played by scripts that take what their manuals document and
nothing else: microdnf's hands it to dnf, apk's keeps a list."""

import json
import os
import unittest

import lab
from augment_driver import Driver
from labkit.fixture import PATH, Fixture, Store
from labkit.rpmworld import NEEDED, WANTED, RpmMirror

L = None
D = None
M = None
S = None

ARCH = "x86_64"
HOSTS = ["mirrors.fedoraproject.org", "archives.fedoraproject.org", "mirrors.almalinux.org", "repo.almalinux.org",
         "cdn.amazonlinux.com"]
KEY = "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/lab\n"


def fedora(repo, path, metalink, more=""):
    return (f"[{repo}]\nname=Fedora $releasever - $basearch\n{path and f'#baseurl=http://download.example/pub/fedora/linux/{path}'}"
            f"{path and chr(10)}metalink=https://mirrors.fedoraproject.org/metalink?repo={metalink}&arch=$basearch\nenabled=1\n"
            f"countme=1\nmetadata_expire=7d\nrepo_gpgcheck=0\ntype=rpm\n{KEY}{more}")


FEDORA = {
    "fedora.repo": fedora("fedora", "releases/$releasever/Everything/$basearch/os/", "fedora-$releasever",
                          "skip_if_unavailable=False\n\n[fedora-source]\nname=x\n#baseurl=http://download.example/pub/fedora/linux/"
                          "releases/$releasever/Everything/source/tree/\nmetalink=https://mirrors.fedoraproject.org/metalink?"
                          "repo=fedora-source-$releasever&arch=$basearch\nenabled=0\ngpgcheck=1\n"),
    "fedora-updates.repo": fedora("updates", "updates/$releasever/Everything/$basearch/", "updates-released-f$releasever"),
    # It has no baseurl.
    "fedora-cisco-openh264.repo": fedora("fedora-cisco-openh264", "", "fedora-cisco-openh264-$releasever",
                                         "skip_if_unavailable=True\n"),
}


def centos(name, repo, path, more=""):
    return (f"[{name}]\nname=CentOS-$releasever - {name}\nmirrorlist=http://mirrorlist.centos.org/?release={more or '$releasever'}"
            f"&arch=$basearch&repo={repo}&infra=$infra\n#baseurl=http://mirror.centos.org/{path}\n{KEY}\n")


CENTOS6 = {"CentOS-Base.repo": centos("base", "os", "centos/$releasever/os/$basearch/") +
           centos("updates", "updates", "centos/$releasever/updates/$basearch/")}
# Somebody else's, which has its mirrors still; the address in the comment is none.
EPEL = ("[epel]\nname=Extra Packages for Enterprise Linux $releasever\n#baseurl=http://download.example/pub/epel/$releasever/$basearch\n"
        f"metalink=https://mirrors.fedoraproject.org/metalink?repo=epel-$releasever&arch=$basearch\nenabled=1\n{KEY}\n"
        f"[epel-debuginfo]\nname=x\nmetalink=https://mirrors.fedoraproject.org/metalink?repo=epel-debug-$releasever\nenabled=0\n")
CENTOS7 = {**CENTOS6, "epel.repo": EPEL}
CENTOS8 = {"CentOS-Linux-BaseOS.repo": centos("baseos", "BaseOS", "$contentdir/$releasever/BaseOS/$basearch/os/"),
           "CentOS-Linux-AppStream.repo": centos("appstream", "AppStream", "$contentdir/$releasever/AppStream/$basearch/os/")}
STREAM8 = {"CentOS-Stream-BaseOS.repo": centos("baseos", "BaseOS", "$contentdir/$stream/BaseOS/$basearch/os/", "$stream"),
           "CentOS-Stream-AppStream.repo": centos("appstream", "AppStream", "$contentdir/$stream/AppStream/$basearch/os/", "$stream")}
ALMA9 = {"almalinux-baseos.repo": "[baseos]\nname=AlmaLinux $releasever - BaseOS\nmirrorlist=https://mirrors.almalinux.org/mirrorlist/"
         "$releasever/baseos\n# baseurl=https://repo.almalinux.org/almalinux/$releasever/BaseOS/$basearch/os/\nenabled=1\n"
         f"countme=1\nmetadata_expire=86400\nenabled_metadata=1\n{KEY}"}
AMAZON = {"amazonlinux.repo": "[amazonlinux]\nname=Amazon Linux 2023 repository\nmirrorlist=https://cdn.amazonlinux.com/al2023/core/"
          f"mirrors/$releasever/$basearch/mirror.list\npriority=10\nenabled=1\nrepo_gpgcheck=0\ntype=rpm\nmetadata_expire=48h\n{KEY}"}

# What microdnf(8) documents; dnf, which does the work, is out of sight.
MICRODNF = b"""#!/bin/sh
for a; do
    case $a in
    -y|--assumeyes|--nodocs|--best|--nobest|--refresh|--enablerepo=*|--disablerepo=*|--setopt=install_weak_deps=*|--setopt=tsflags=*) ;;
    -*) echo "error: Unknown option $a" >&2; exit 1 ;;
    esac
done
for a; do
    case $a in
    -*) ;;
    install|makecache|clean|update|upgrade|remove|reinstall|repolist|repoquery|module|download|leaves|swap) break ;;
    *) echo "error: Unknown command: '$a'" >&2; exit 1 ;;
    esac
done
exec /usr/lib/real-dnf "$@"
"""


# What apk(8), apk-update(8), apk-search(8) and apk-add(8) document of what is used here, with the messages of apk 2.14. It
# refuses what they don't know, and knows fewer packages than are wanted.
APK = b"""#!/bin/sh
echo "$*" >>/var/log/apk.calls
there=" ca-certificates gcc g++ make musl-dev patch wget sudo flex git libtool openssl-dev libpcap-dev python3 openssh rsyslog iproute2
 iputils net-tools less nano zsh "
wrong() { echo "apk: $1" >&2; exit 99; }
command=$1
[ $# -gt 0 ] || wrong usage
shift
case $command in
update)
    [ $# = 0 ] || wrong "update $1"
    [ ! -e /etc/apk/no-network ] || { echo 'WARNING: fetching https://dl-cdn.alpinelinux.org/: temporary error (try again later)'; exit 4; }
    mkdir -p /var/cache/apk; echo index >/var/cache/apk/APKINDEX.1.tar.gz ;;
search)
    [ $# = 2 ] && [ "$1" = -e ] || wrong "search $*"
    case $there in *[[:space:]]"$2"[[:space:]]*) echo "$2-1.2.3-r4" ;; esac ;;
add)
    for p; do
        case $p in
        -*) wrong "unrecognized option $p" ;;
        *[!a-z0-9+._-]*) wrong "'$p' is not a correct format" ;;
        esac
        case $there in
        *[[:space:]]"$p"[[:space:]]*) ;;
        *) printf 'ERROR: unable to select packages:\\n  %s (no such package):\\n    required by: world[%s]\\n' "$p" "$p" >&2; exit 1 ;;
        esac
    done
    for p; do echo "$p" >>/etc/apk/world; done ;;
*) wrong "'$command' is not an apk command" ;;
esac
"""


def setUpModule():
    global L, D, M, S
    L = lab.Lab.get()
    L.dockerd.ensure()
    M = RpmMirror(L, "10.200.0.1", HOSTS)
    S = Store(L.local, json.loads(os.environ["TBNODE_LAB_FIXTURES"]))
    D = Driver(L)


def tearDownModule():
    if D:
        assert D.close() == 0
    if M:
        M.close()


def push(name, release, repos, ident, version, config=None, variables=None, **files):
    """That release with its repository files; its mirrors are reached through the laboratory's proxy."""
    files = {
        "etc/os-release": f'ID={ident}\nVERSION_ID="{version}"\nID_LIKE="rhel fedora"\n'.encode(),
        "etc/redhat-release": f"{release}\n".encode(), "etc/pki/rpm-gpg/lab": M.key, "etc/lab-ca.pem": M.ca,
        **({"etc/centos-release": f"{release}\n".encode()} if ident == "centos" else {}),
        "etc/dnf/dnf.conf": f"[main]\ngpgcheck=1\nbest=True\nproxy={M.url}\nsslcacert=/etc/lab-ca.pem\nretries=1\n".encode(),
        **{f"etc/dnf/vars/{k}": v.encode() for k, v in {"releasever": version, "infra": "container", **(variables or {})}.items()},
        **{f"etc/yum.repos.d/{k}": v.encode() for k, v in repos.items()},
        # No package tool but its own.
        **{f"usr/bin/.wh.{x}": b"" for x in ("apt", "apt-get", "apt-cache", "dpkg", "dpkg-query")}, "etc/.wh.debian_version": b"",
        **files}
    config = {"Cmd": ["bash"], "Env": [PATH, "A=b c"], **(config or {})}
    return S.push(Fixture(name, "glibc, usrmerge", "bash", ["debian", "dnf", files], config))


def fedora_is_there(version="39"):
    M.clear()
    there = "dl.example.net/fedora"
    M.metalink(f"mirrors.fedoraproject.org/metalink?repo=fedora-{version}&arch={ARCH}", f"http://{there}/os")
    M.metalink(f"mirrors.fedoraproject.org/metalink?repo=updates-released-f{version}&arch={ARCH}", f"http://{there}/updates", "empty")
    M.metalink(f"mirrors.fedoraproject.org/metalink?repo=fedora-cisco-openh264-{version}&arch={ARCH}", f"http://{there}/cisco", "empty")
    M.publish(f"{there}/os")
    M.publish(f"{there}/updates", "empty")
    M.publish(f"{there}/cisco", "empty")


def run(image, script, user="0"):
    return L.docker("run", "--rm", "--user", user, "--entrypoint", "/bin/sh", image, "-c", script, check=False)


class Base(unittest.TestCase):
    def script(self, base, level="buildenv"):
        """What the Dockerfile's RUN has."""
        r = D("context", base, level=level, builder="docker", directory=L.tmp("context"))
        self.assertNotIn("error", r)
        text = r["result"]["dockerfile"]
        run_text = text[text.index("RUN [") + 4:]
        return json.loads(run_text[:run_text.index("\n\n")].replace("\\\n", ""))[2]

    def run_script(self, base, check=True, after=""):
        """Runs it in a container; then shows what it left of the repository files."""
        r = L.docker("run", "--rm", base, "/bin/sh", "-euc", self.script(base) +
                     f"\n{after}\necho REPOSITORIES; cd /etc/yum.repos.d; for f in *; do echo \"FILE $f\"; cat $f; done\n",
                     check=False, timeout=300)
        if check:
            self.assertEqual(r.rc, 0, r)
        return r

    def check_left(self, r, repos, tool="rpm"):
        found = r.out[r.out.index("REPOSITORIES\n") + 13:]
        self.assertEqual(found, "".join(f"FILE {k}\n{repos[k]}" for k in sorted(repos)))


class Builds(Base):
    USER = {"User": "www-data:adm", "WorkingDir": "/srv", "Entrypoint": ["/bin/sh", "-c", "id; pwd; echo \"$A $HOME $0 $*\"", "me"],
            "Cmd": ["x  y"], "StopSignal": "SIGUSR1"}

    def check_image(self, base, image, level, repos):
        names = [*NEEDED, *WANTED]
        only_full = {"openssh-server", "rsyslog", "iproute", "iputils", "less", "net-tools", "logrotate", "rsync", "psmisc", "zsh"}
        wanted = {n for n in names if level == "full" or n not in only_full} | {"cpp"}
        r = run(image, "rpm -qa --qf '%{NAME}\\n' | grep -v gpg-pubkey; gcc >&2; ls /var/cache/dnf /var/cache/yum >&2; "
                "ls /etc/yum.repos.d >&2; ls /tbnode/bin/tmcc >&2")
        self.assertEqual(set(r.out.split()), wanted)
        lines = r.err.splitlines()
        self.assertEqual(lines[0], "compiled")
        for cache in ("/var/cache/dnf", "/var/cache/yum"):
            self.assertTrue([x for x in lines if cache in x and "No such file" in x], r)
        self.assertEqual(lines[-1 - len(repos):-1], sorted(repos))
        self.assertEqual(lines[-1], "/tbnode/bin/tmcc")
        L.docker("pull", "-q", base)
        plain = [L.docker("run", "--rm", "--hostname", "h", i, check=False) for i in (base, image)]
        self.assertEqual((plain[0].rc, plain[0].out, plain[0].err), (plain[1].rc, plain[1].out, plain[1].err))
        self.assertIn("uid=33(www-data) gid=4(adm)", plain[1].out)
        _, seen = L.dockerd.request("GET", f"/images/{image}/json")
        for key in ("User", "WorkingDir", "Cmd", "StopSignal"):
            self.assertEqual(seen["Config"][key], self.USER[key])
        self.assertEqual(seen["Config"]["Labels"]["org.tbnode.level"], level)

    def test_full_on_fedora_by_the_classic_builder(self):
        fedora_is_there()
        base = push("fedora-39", "Fedora release 39 (Thirty Nine)", FEDORA, "fedora", "39", self.USER)
        r = D("docker", base, level="full")
        self.assertNotIn("error", r)
        self.assertEqual((r["result"]["facts"]["files"]["distro"], r["result"]["facts"]["files"]["packages"]), ("fedora", "dnf"))
        self.assertEqual(M.hosts(), ["mirrors.fedoraproject.org", "dl.example.net"])
        L.docker("pull", "-q", r["result"]["image"])
        self.check_image(base, r["result"]["image"], "full", FEDORA)

    def test_buildenv_on_centos_8_by_buildkit_from_the_archive(self):
        M.clear("mirrorlist.centos.org", "mirror.centos.org")
        M.publish(f"vault.centos.org/centos/8/BaseOS/{ARCH}/os")
        M.publish(f"vault.centos.org/centos/8/AppStream/{ARCH}/os", "empty")
        base = push("centos-8", "CentOS Linux release 8.5.2111", CENTOS8, "centos", "8", self.USER, {"contentdir": "centos"})
        directory = L.tmp("context")
        r = D("context", base, level="buildenv", builder="docker", directory=directory)
        self.assertNotIn("error", r)
        L.docker("build", "-q", "-t", "centos:full", directory, env={"DOCKER_BUILDKIT": "1"}, timeout=600)
        self.assertEqual(M.hosts(), ["vault.centos.org"])
        self.check_image(base, "centos:full", "buildenv", CENTOS8)

    def test_no_mirror_at_all(self):
        M.clear()
        base = push("fedora-nowhere", "Fedora release 39 (Thirty Nine)", FEDORA, "fedora", "39")
        before = L.local.all_tags()
        r = D("docker", base, level="buildenv")
        self.assertIn("the engine says:", r["error"]["message"])
        self.assertNotIn("\n", r["error"]["message"])
        self.assertEqual([t for t in L.local.all_tags() if t not in before and (":k-" in t or t.endswith("-buildenv"))], [])


class Sources(Base):
    def test_fedora_that_only_the_archive_has(self):
        """Metalinks outlive a release for a while; then they are gone. A repository without an address of its own goes with them."""
        M.clear("mirrors.fedoraproject.org")
        archive = "archives.fedoraproject.org/pub/archive/fedora/linux"
        M.publish(f"{archive}/releases/20/Everything/{ARCH}/os")
        M.publish(f"{archive}/updates/20/Everything/{ARCH}", "empty")
        base = push("fedora-20", "Fedora release 20 (Heisenbug)", FEDORA, "fedora", "20")
        self.check_left(self.run_script(base), FEDORA)
        self.assertEqual(M.hosts(), ["archives.fedoraproject.org"])

    def test_centos_7_with_yum(self):
        M.clear("mirrorlist.centos.org", "mirror.centos.org")
        M.publish(f"vault.centos.org/centos/7/os/{ARCH}")
        M.publish(f"vault.centos.org/centos/7/updates/{ARCH}", "empty")
        M.metalink(f"mirrors.fedoraproject.org/metalink?repo=epel-7&arch={ARCH}", "http://dl.example.net/epel", "empty")
        M.publish("dl.example.net/epel", "empty")
        base = push("centos-7", "CentOS Linux release 7.9.2009 (Core)", CENTOS7, "centos", "7",
                    **{"usr/bin/.wh.dnf": b""})
        r = self.run_script(base)
        self.check_left(r, CENTOS7)
        self.assertEqual(set(M.hosts()), {"vault.centos.org", "mirrors.fedoraproject.org", "dl.example.net"})

    def test_centos_6_lies_under_its_last_release(self):
        M.clear("mirrorlist.centos.org", "mirror.centos.org")
        M.publish(f"vault.centos.org/centos/6.10/os/{ARCH}")
        M.publish(f"vault.centos.org/centos/6.10/updates/{ARCH}", "empty")
        M.metalink(f"mirrors.fedoraproject.org/metalink?repo=epel-6&arch={ARCH}", "http://dl.example.net/epel", "empty")
        M.publish("dl.example.net/epel", "empty")
        base = push("centos-6", "CentOS release 6.10 (Final)", {**CENTOS6, "epel.repo": EPEL}, "centos", "6",
                    **{"usr/bin/.wh.dnf": b""})
        self.check_left(self.run_script(base), {**CENTOS6, "epel.repo": EPEL})

    def test_centos_stream_8(self):
        M.clear("mirrorlist.centos.org", "mirror.centos.org")
        M.publish(f"vault.centos.org/centos/8-stream/BaseOS/{ARCH}/os")
        M.publish(f"vault.centos.org/centos/8-stream/AppStream/{ARCH}/os", "empty")
        base = push("stream-8", "CentOS Stream release 8", STREAM8, "centos", "8",
                    variables={"contentdir": "centos", "stream": "8-stream"})
        self.check_left(self.run_script(base), STREAM8)

    def test_almalinux_and_amazon_linux_have_their_mirrors(self):
        M.clear()
        M.mirror_list("mirrors.almalinux.org/mirrorlist/9/baseos", f"http://alma.example.net/9/BaseOS/{ARCH}/os/")
        M.publish(f"alma.example.net/9/BaseOS/{ARCH}/os")
        M.mirror_list(f"cdn.amazonlinux.com/al2023/core/mirrors/2023.6/{ARCH}/mirror.list",
                      f"https://cdn.amazonlinux.com/al2023/core/guids/abc/{ARCH}/")
        M.publish(f"cdn.amazonlinux.com/al2023/core/guids/abc/{ARCH}")
        base = push("alma-9", "AlmaLinux release 9.4 (Seafoam Ocelot)", ALMA9, "almalinux", "9")
        self.check_left(self.run_script(base), ALMA9)
        base = push("amazon-2023", "Amazon Linux release 2023.6 (Amazon Linux)", AMAZON, "amzn", "2023.6")
        self.check_left(self.run_script(base), AMAZON)
        self.assertEqual(M.hosts(), ["mirrors.almalinux.org", "alma.example.net", "cdn.amazonlinux.com"])

    def test_microdnf(self):
        M.clear()
        M.mirror_list("mirrors.almalinux.org/mirrorlist/9/baseos", f"http://alma.example.net/9/BaseOS/{ARCH}/os/")
        M.publish(f"alma.example.net/9/BaseOS/{ARCH}/os")
        base = push("alma-minimal", "AlmaLinux release 9.4 (Seafoam Ocelot)", ALMA9, "almalinux", "9", **{
            "usr/bin/.wh.dnf": b"", "usr/bin/.wh.yum": b"", "usr/bin/microdnf": (MICRODNF, 0o755),
            "usr/lib/real-dnf": "->../bin/dnf-3"})
        r = self.run_script(base)
        self.assertIn("byacc", r.out + r.err)
        self.check_left(r, ALMA9)

    def test_what_is_not_signed_is_refused(self):
        M.clear()
        M.mirror_list("mirrors.almalinux.org/mirrorlist/9/baseos", f"http://alma.example.net/9/BaseOS/{ARCH}/os/")
        M.publish(f"alma.example.net/9/BaseOS/{ARCH}/os", "unsigned")
        base = push("alma-unsigned", "AlmaLinux release 9.4 (Seafoam Ocelot)", ALMA9, "almalinux", "9")
        r = self.run_script(base, check=False)
        self.assertNotEqual(r.rc, 0)
        self.assertIn("not signed", r.out + r.err)


class Alpine(Base):
    def push(self, name, **files):
        return lab.images.busybox(L, {"Cmd": ["id"], "User": "app"}, {
            "etc/os-release": b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.19.1\n', "etc/alpine-release": b"3.19.1\n",
            "etc/apk/world": b"alpine-baselayout\n", "sbin/apk": (APK, 0o755), "var/log": None, **files,
        }).push(L.local, f"fixture/{name}:1")

    def test_full(self):
        """By busybox's shell; what a release has not is left out, all else is asked for once."""
        base = self.push("alpine")
        r = D("docker", base, level="full")
        self.assertNotIn("error", r)
        files = r["result"]["facts"]["files"]
        self.assertEqual((files["distro"], files["packages"]), ("alpine", "apk"))
        image = r["result"]["image"]
        L.docker("pull", "-q", image)
        seen = run(image, "cat /etc/apk/world; echo CALLS; cat /var/log/apk.calls; echo CACHE; ls /var/cache/apk").out
        world, calls = seen.split("CALLS\n")
        calls, cache = calls.split("CACHE\n")
        self.assertEqual(cache, "")
        self.assertEqual(world.split()[0], "alpine-baselayout")
        self.assertEqual(set(world.split()[1:]), set(
            "ca-certificates gcc g++ make musl-dev patch wget sudo flex git libtool openssl-dev libpcap-dev python3 openssh rsyslog "
            "iproute2 iputils net-tools less nano zsh".split()))
        self.assertEqual([x.split()[0] for x in calls.splitlines() if not x.startswith("search -e ")], ["update", "add"])
        self.assertIn("uid=1000(app)", L.docker("run", "--rm", image).out)

    def test_without_a_mirror_nothing_is_made(self):
        base = self.push("alpine-offline", **{"etc/apk/no-network": b""})
        before = L.local.all_tags()
        r = D("docker", base, level="buildenv")
        self.assertIn("the engine says:", r["error"]["message"])
        self.assertEqual([t for t in L.local.all_tags() if t not in before and (":k-" in t or t.endswith("-buildenv"))], [])


if __name__ == "__main__":
    lab.main(debian=True, layers=["debian", "dnf"])
