#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package's units under a real systemd, which is process 1 of a container with this host's files and a Docker of its own.

Everything that the service is not allowed shows only here: nodes are made, measured, changed and removed by the agent as systemd
runs it. The container's root is an overlay on tmpfs; it has its own network, and ends with its process 1.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("TBNODE_BUILD_DIR", f"{SOURCE}/build")
NEEDED = {"systemd-nspawn": "systemd-container", "dockerd": "docker.io", "docker-registry": "docker-registry", "busybox": "busybox-static",
          "nft": "nftables"}
CALL = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup", "bash", "-c"]

OUTSIDE = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs "$W/over"
mkdir -p "$W/over/u" "$W/over/w" "$W/m"
mount -t overlay overlay -o "lowerdir=/,upperdir=$W/over/u,workdir=$W/over/w" "$W/m"
M=$W/m
rm -rf "$M"/etc/systemd/system/*.wants/* "$M/var/lib/docker" "$M/etc/docker" "$M/var/lib/tbnode" "$M/var/lib/docker-registry" "$M/usr/sbin/policy-rc.d"
mkdir -p "$M/etc/docker/registry" "$M/var/lib/docker-registry" "$M/etc/systemd/system/multi-user.target.wants" "$M/var/log/journal"
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$M/etc/machine-id"
cp "$W/tbnode.deb" "$M/root/tbnode.deb"
cp "$W/inside.sh" "$M/root/inside.sh"
printf '[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nTimeoutStartSec=200\nExecStart=/bin/bash /root/inside.sh\nExecStopPost=/bin/systemctl --no-block poweroff\n' \
    >"$M/etc/systemd/system/inside.service"
ln -s ../inside.service "$M/etc/systemd/system/multi-user.target.wants/inside.service"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_LOCK=0 systemd-nspawn -q -D "$M" --boot --register=no --keep-unit --private-network \
    --capability=all --system-call-filter='@keyring bpf' --console=pipe systemd.unit=multi-user.target </dev/null >"$W/console" 2>&1 || true
cp "$M/root/out.txt" "$W/out.txt"
"""

INSIDE = r"""
exec >/root/out.txt 2>&1
step() { echo "== $1"; }
retry() { for _ in $(seq 100); do "$@" && return 0; sleep 0.1; done; return 1; }
step boot
dpkg -i --force-confnew /root/tbnode.deb >/dev/null && echo installed
printf 'version: 0.1\nstorage:\n  delete: {enabled: true}\n  filesystem: {rootdirectory: /var/lib/docker-registry}\nhttp: {addr: 127.0.0.1:5000}\n' \
    >/etc/docker/registry/config.yml
chown -R docker-registry: /var/lib/docker-registry
echo '{"storage-driver": "vfs", "runtimes": {"tbnode": {"path": "/usr/libexec/tbnode/tbnode-runtime"}}, "default-runtime": "tbnode"}' >/etc/docker/daemon.json
printf 'registry=http://127.0.0.1:5000\nssh-ports=22000-22009\n' >>/etc/tbnode/tbnoded.conf
systemctl enable --quiet --now docker-registry docker tbnoded && echo started
mkdir -p /tmp/i/bin && cp "$(command -v busybox)" /tmp/i/bin/
for a in sh sleep cat ls; do ln -s busybox /tmp/i/bin/$a; done
tar -C /tmp/i -c . | docker import - 127.0.0.1:5000/t/busybox:1 >/dev/null && docker push -q 127.0.0.1:5000/t/busybox:1

step nodes
tbnode augment --json 127.0.0.1:5000/t/busybox:1 | grep -o '"cache": *"[a-z]*"'
tbnode run --name n1 --network lan0 --level core --firewall basic --shape 'rate 10mbit' 127.0.0.1:5000/t/busybox:1 sleep 1000
tbnode run --name n2 --network lan0 --firewall closed --shape 'rate 10mbit' 127.0.0.1:5000/t/busybox:1 sleep 1000
docker run -d --name n3 --label tbnode.shape='rate 1mbit' 127.0.0.1:5000/t/busybox:1 sleep 1000 >/dev/null
tbnode ps

step inside
attached() { tbnode programs --json n1 | grep -q '"attached": *true'; }
retry attached && echo attached
tbnode logs --syslog n1 | grep -c syslogd
tbnode shape check --no-rate n1
tbnode shape set n1 lan0 rate 5mbit && tbnode firewall set n2 open && echo changed
tbnode images
docker restart n3 && tbnode ps

step outside
ssh-keygen -q -t ed25519 -N '' -f /tmp/k
tbnode run --name n4 --experiment files --level none --ssh-key /tmp/k 127.0.0.1:5000/t/busybox:1 sleep 1000
docker run -d --name n5 --label tbnode.ssh-keys="$(cat /tmp/k.pub)" 127.0.0.1:5000/t/busybox:1 sleep 1000 >/dev/null
for n in n4 n5; do tbnode ssh -i /tmp/k $n "echo $n-\$((1+1))"; done
tbnode logs --experiment files --collect /tmp/collected --files /bin/sh && ls /tmp/collected/n4/files/bin/sh

step restart
systemctl restart tbnoded
tbnode ps
tbnode status --json | tr -d ' \n' | grep -o '"kernel_writes":[0-9]*'

step reload
echo 'nosuchkey=1' >>/etc/tbnode/tbnoded.conf
systemctl reload tbnoded 2>/dev/null || echo refused
systemctl is-active tbnoded
sed -i /nosuchkey/d /etc/tbnode/tbnoded.conf
echo 'nodes-max=500' >>/etc/tbnode/tbnoded.conf
systemctl reload tbnoded && echo reloaded
tbnode events | tail -1

step journal
journalctl -u tbnoded -o json TBNODE_NODE=n2 -n 1
journalctl -u tbnoded -x MESSAGE_ID=f7ff870061c54b0ba2d3c92b12758a75

step watchdog
mkdir -p /run/systemd/system/tbnoded.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/tbnoded.service.d/w.conf
systemctl daemon-reload && systemctl restart tbnoded
kill -STOP "$(systemctl show -P MainPID tbnoded)"
again() { [ "$(systemctl show -P NRestarts tbnoded)" = 1 ] && [ "$(systemctl is-active tbnoded)" = active ]; }
retry again && echo again
tbnode ps

step gc
systemctl start tbnode-registry-gc.service && systemctl show -P Result tbnode-registry-gc.service
systemctl is-active docker-registry
systemctl enable --quiet --now tbnode-registry-gc.timer && systemctl is-active tbnode-registry-gc.timer

step upgrade
dpkg -i --force-confold /root/tbnode.deb >/dev/null && retry tbnode status >/dev/null && tbnode status --json | tr -d ' \n' | grep -o '"kernel_writes":[0-9]*'
tbnode ps
for n in n4 n5; do tbnode ssh -i /tmp/k $n "echo $n-\$((2+1))"; done
tbnode rm n1 n2 n3 n4 n5

step denied
journalctl -b --no-pager -u tbnoded -p err -o cat
step purge
dpkg -P tbnode >/dev/null 2>&1 && echo purged
ls -d /etc/tbnode /var/lib/tbnode /run/tbnode /usr/sbin/tbnoded 2>/dev/null
systemctl is-active tbnoded
step end
"""


def skip(why):
    print(f"skipped: {why}", file=sys.stderr)
    sys.exit(77)


class Systemd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix="tbnode-systemd-", dir="/var/tmp")
        os.makedirs(f"{cls.work}/over")
        deb = subprocess.run([f"{SOURCE}/scripts/package", "--build", BUILD, f"{cls.work}/deb"], check=True, stdout=subprocess.PIPE,
                             text=True).stdout.split()[-1]
        shutil.move(deb, f"{cls.work}/tbnode.deb")
        with open(f"{cls.work}/inside.sh", "w", encoding="utf-8") as f:
            f.write(INSIDE)
        r = subprocess.run([*CALL, OUTSIDE], env={**os.environ, "W": cls.work}, capture_output=True, text=True, timeout=280)
        cls.out = {}
        try:
            with open(f"{cls.work}/out.txt", encoding="utf-8") as f:
                parts = re.split(r"^== (\w+)\n", f.read(), flags=re.M)
        except OSError:
            console = ""
            if os.path.exists(f"{cls.work}/console"):
                with open(f"{cls.work}/console", encoding="utf-8", errors="replace") as f:
                    console = f.read()
            if "Reached target" in console:
                raise AssertionError(f"systemd came up, and nothing came of it: {console[-3000:]}") from None
            shutil.rmtree(cls.work, ignore_errors=True)
            why = (r.stderr + console).strip().splitlines() or ["it says nothing"]
            print(f"skipped: systemd can't be process 1 of a container here: {why[-1]}", file=sys.stderr, flush=True)
            os._exit(77)
        cls.out = dict(zip(parts[1::2], parts[2::2]))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work, ignore_errors=True)

    def has(self, step, *words):
        self.assertIn(step, self.out, self.out)
        for w in words:
            self.assertIn(w, self.out[step], f"{step}: {self.out[step]}")

    def configured(self, step, *nodes):
        for n in nodes:
            self.assertRegex(self.out[step], rf"(?m)^{n} +- +configured ", step)

    def test_nodes(self):
        self.has("boot", "installed", "started")
        self.has("nodes", "node n1 is up", "node n2 is up", '"miss"')
        self.configured("nodes", "n1", "n2", "n3")

    def test_what_goes_on_inside_of_nodes(self):
        self.has("inside", "attached", "changed", "as declared", "core")
        self.assertRegex(self.out["inside"], r"(?m)^[1-9][0-9]*$", "lines of the system log")
        self.configured("inside", "n1", "n2", "n3")

    def test_restart_and_upgrade_write_nothing(self):
        for step in ("restart", "upgrade"):
            self.configured(step, "n1", "n2", "n3")
            self.has(step, '"kernel_writes":0')

    def test_ssh_from_outside(self):
        self.has("outside", "n4-2\n", "n5-2\n", "/tmp/collected/n4/files/bin/sh\n")
        self.has("upgrade", "n4-3\n", "n5-3\n")

    def test_reload(self):
        self.has("reload", "refused\nactive\n", "reloaded", "config-reloaded")

    def test_journal(self):
        first = json.loads(self.out["journal"].splitlines()[0])
        self.assertEqual(("n2", "tbnoded"), (first["TBNODE_NODE"], first["SYSLOG_IDENTIFIER"]))
        self.assertEqual(12, len(first["CONTAINER_ID"]))
        self.has("journal", "Subject: The configuration was read again")

    def test_watchdog(self):
        self.has("watchdog", "again")
        self.configured("watchdog", "n1", "n2", "n3")

    def test_garbage_collection(self):
        self.has("gc", "success\nactive\nactive\n")

    def test_nothing_was_denied_and_nothing_is_left(self):
        # What the watchdog's end and the wrong file have in the journal is systemd's; the agent itself had no errors.
        self.assertEqual([], [x for x in self.out["denied"].splitlines() if "ermission" in x or "not permitted" in x or "cannot" in x])
        self.assertEqual("purged\ninactive\n", self.out["purge"])
        self.assertIn("end", self.out)


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("needs root")
    lacking = sorted({package for tool, package in NEEDED.items() if not shutil.which(tool)})
    if lacking:
        skip(f"these packages are missing: {' '.join(lacking)}; scripts/install-deps test installs them")
    prefix = json.loads(subprocess.run(["meson", "introspect", "--buildoptions", BUILD], check=True, capture_output=True, text=True).stdout)
    if next(o["value"] for o in prefix if o["name"] == "prefix") != "/usr":
        skip("the build is not configured with -Dprefix=/usr")
    unittest.main()
