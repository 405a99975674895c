# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel holds, as the ordinary tools print it: the oracles of the tests."""

import json

from .process import LabError, run, wait_for


class KernelView:
    def links(self):
        """`ip -j -d link` of the sandbox."""
        return json.loads(run(["ip", "-j", "-d", "link", "show"]).out or "[]")

    def ifbs(self):
        return [x["ifname"] for x in self.links() if x.get("linkinfo", {}).get("info_kind") == "ifb"]

    def qdiscs(self, dev=None, stats=False):
        """`tc -j qdisc`; without the device's default one (noqueue, pfifo_fast...: handle 0)."""
        argv = ["tc", "-j"] + (["-s"] if stats else []) + ["qdisc", "show"] + (["dev", dev] if dev else [])
        return [q for q in json.loads(run(argv).out or "[]") if q.get("handle") != "0:" or q["kind"] == "clsact"]

    def classes(self, dev):
        return json.loads(run(["tc", "-j", "class", "show", "dev", dev]).out or "[]")

    def filters(self, dev, parent=None):
        """`tc filter` as text: its -j output is broken for u32 in iproute2 6.1."""
        return run(["tc", "filter", "show", "dev", dev] + (["parent", parent] if parent else [])).out

    def iptables(self, table=None):
        """`iptables-legacy-save` lines without comments and counters: the tables libiptc writes."""
        argv = ["iptables-legacy-save"] + (["-t", table] if table else [])
        return [line.split(" [")[0] for line in run(argv).out.splitlines() if not line.startswith("#")]

    def ip6tables(self):
        """The same of IPv6."""
        return [line.split(" [")[0] for line in run(["ip6tables-legacy-save"]).out.splitlines() if line[:1] != "#"]

    def iptables_nft(self):
        """Docker's own rules, when `iptables` is the nft variant."""
        return [line.split(" [")[0] for line in run(["iptables-nft-save"]).out.splitlines() if line[:1] != "#"]

    def nft(self):
        return run(["nft", "-s", "list", "ruleset"]).out

    def traces(self):
        """Everything of ours in this network namespace, one line each; [] is the state that a clean-up must reach."""
        found = [f"ifb {name}" for name in self.ifbs()]
        found += [f"qdisc {q['kind']} on {q['dev']}" for q in self.qdiscs()]
        found += [f"iptables {line}" for line in self.iptables() if "TBNODE" in line.upper()]
        found += [f"ip6tables {line}" for line in self.ip6tables() if "TBNODE" in line.upper()]
        found += [f"nft {line.strip()}" for line in self.nft().splitlines() if "tbnode" in line.lower()]
        return found

    # ---- containers ----

    def container_pid(self, name):
        """Host-side pid of a running container's first process."""
        pid = int(self.docker("inspect", "-f", "{{.State.Pid}}", name).out)
        if pid <= 0:
            raise LabError(f"container {name} does not run")
        return pid

    def nsrun(self, pid, *argv, **options):
        """Runs a host program in a container's network namespace: works for images without any tool."""
        return run(["nsenter", "-t", str(pid), "-n", "--", *argv], **options)

    def bandwidth(self, src_pid, dst_pid, dst_ip, seconds=3, udp_rate=None, port=5201):
        """bit/s that arrive, measured by iperf3 from one container's network namespace to another's."""
        import subprocess
        server = subprocess.Popen(["nsenter", "-t", str(dst_pid), "-n", "--", "iperf3", "-s", "-1", "-p", str(port)],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: f":{port} " in self.nsrun(dst_pid, "ss", "-Hltn").out, 10, "iperf3's server")
            argv = ["iperf3", "-J", "-c", dst_ip, "-p", str(port), "-t", str(seconds), "-O", "1"]
            r = self.nsrun(src_pid, *argv, *(["-u", "-b", str(udp_rate)] if udp_rate else []), timeout=seconds + 30)
            end = r.json()["end"]
            return end["sum"]["bits_per_second"] if udp_rate else end["sum_received"]["bits_per_second"]
        finally:
            server.terminate()
            server.wait(10)
