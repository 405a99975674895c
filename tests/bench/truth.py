#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is the kernel as declared? Answers with docker, ip, tc, iptables and nft only; knows nothing of the agent but its contract.

    truth.py DECLARED.json BACKEND

DECLARED.json: {CONTAINER: {"shape": {NETWORK: [UP, DOWN]}, "style": STYLE}, ...}; rates in bit/s, null: none. BACKEND: where the styles
are, iptables or nftables; the other one must have nothing. The guard is in nf_tables with both.

Prints a list of what is wrong, as JSON; [] means: every running container has what is declared for it, and nothing else is there.
How the rules of a style look is taken from the node whose rules most others of that style agree with."""

import collections
import json
import re
import subprocess
import sys

ROOT = "7462:"
MARK = 0x40000000  # an ifb has the index of its veth above this


# What every packet meets first: these chains look it up in these maps (docs/firewall-backends.md).
GUARD = {"prerouting": {"ports"}, "input": {"pinned", "hosts"}, "forward": {"quiet", "peers"}, "output": {"peers4", "peers6"}}
STYLED = {"forward": {"out4", "in4", "out6", "in6"}, "input": {"host4", "host6"}}


def nft(family, table):
    """One line for each chain, rule and element of a table, without what changes by itself: counters, places, names in a log."""
    lines, place, elements = [], "", None
    for line in run("nft", "list", "table", family, table).splitlines():
        line = re.sub(r"counter packets \d+ bytes \d+|log prefix \"[^\"]*\"| #[0-9a-f]{16}", "", line.strip())
        opened = re.match(r"(chain|map|set) (\S+) {$", line)
        if opened:
            place = f"{family} {opened[1]} {opened[2]}"
            lines.append(f":{place}")
        elif line.startswith("elements = {") or elements is not None:
            elements = (elements or "") + " " + line.removeprefix("elements = {")
            if line.endswith("}"):
                lines += [f"-A {place} {x.strip()}" for x in elements.rstrip(" }").split(",")]
                elements = None
        elif line not in ("", "}") and not line.startswith(("table ", "type ", "flags ", "size ")):
            lines.append(f"-A {place} {line}")
    return lines


def run(*argv):
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    return p.stdout if p.returncode == 0 else ""


def js(*argv):
    text = run(*argv)
    return json.loads(text) if text.strip() else []


class Host:
    def __init__(self):
        self.links = {x["ifindex"]: x for x in js("ip", "-j", "-d", "link", "show")}
        self.names = {x["ifname"]: x["ifindex"] for x in self.links.values()}
        self.qdiscs = collections.defaultdict(list)
        for q in js("tc", "-j", "qdisc", "show"):
            self.qdiscs[q["dev"]].append(q)
        self.rules = {v: run(f"{v}-legacy-save", "-t", "filter").splitlines() for v in ("iptables", "ip6tables")}
        self.rules |= {"guard": nft("bridge", "tbnode-guard"), "nftables": nft("inet", "tbnode")}
        ids = run("docker", "ps", "-q", "--no-trunc").split()
        self.containers = js("docker", "inspect", *ids) if ids else []

    def rate(self, device):
        """Of our root at a device, in bit/s; None: there is none of ours."""
        roots = [q for q in self.qdiscs[device] if q.get("root") and q.get("handle") != "0:"]
        if not roots:
            return None
        if roots[0]["handle"] != ROOT:
            return f"somebody else's {roots[0]['kind']}"
        classes = run("tc", "class", "show", "dev", device)
        found = re.search(r"class htb 7462:1 .*?rate (\d+)([KMG]?)bit", classes)
        return int(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found[2]] if found else "no class"


class Truth:
    def __init__(self, declared, backend):
        self.declared, self.backend, self.host, self.wrong = declared, backend, Host(), []
        self.used = set()  # indexes of devices that may carry something of ours
        self.filtered = {}  # short id: (name, style)
        self.normal = collections.defaultdict(list)  # style: [(name, its rules)]

    def say(self, text):
        self.wrong.append(text)

    def interface(self, name, network, endpoint, inside, rates):
        mine = [x for x in inside if x.get("address") == endpoint["MacAddress"]]
        if len(mine) != 1 or "link_index" not in mine[0]:
            self.say(f"{name}: no veth for {network}")
            return None
        veth = self.host.links.get(mine[0]["link_index"])
        if not veth:
            self.say(f"{name}: the host side of {network} is gone")
            return None
        bridge = f"br-{endpoint['NetworkID'][:12]}"
        if veth.get("master") != bridge or "UP" not in veth["flags"]:
            self.say(f"{name}: {veth['ifname']} is not up at {bridge}: {veth.get('master')} {veth['flags']}")
        self.used.add(veth["ifindex"])
        up, down = rates
        there = self.host.rate(veth["ifname"])  # somebody else's where nothing is declared is his business
        if there != down and not (down is None and isinstance(there, str)):
            self.say(f"{name}: {veth['ifname']} lets {self.host.rate(veth['ifname'])} to it, not {down}")
        self.ifb(name, veth, up)
        return veth

    def ifb(self, name, veth, up):
        ifb = self.host.links.get(MARK + veth["ifindex"])
        ingress = any(q["kind"] in ("ingress", "clsact") for q in self.host.qdiscs[veth["ifname"]])
        if up is None:
            if ifb or ingress:
                self.say(f"{name}: {veth['ifname']} has an ifb or ingress that nobody declared")
            return
        if not ifb or not ingress or "UP" not in ifb["flags"]:
            self.say(f"{name}: {veth['ifname']} has no ifb, or it is not up, or nothing leads there")
            return
        self.used.add(ifb["ifindex"])
        filters = run("tc", "filter", "show", "dev", veth["ifname"], "ingress")
        if f"Redirect to device {ifb['ifname']})" not in filters or len(re.findall("order 1:", filters)) != 1:
            self.say(f"{name}: what comes from it does not go to {ifb['ifname']}, or not only: {filters}")
        if self.host.rate(ifb["ifname"]) != up:
            self.say(f"{name}: {ifb['ifname']} lets {self.host.rate(ifb['ifname'])} from it, not {up}")

    def container(self, c):
        name = c["Name"].lstrip("/")
        want = self.declared.get(name)
        if want is None or not c["State"]["Pid"]:
            return
        inside = js("nsenter", "-t", str(c["State"]["Pid"]), "-n", "ip", "-j", "link", "show")
        names = {}
        for network, endpoint in sorted(c["NetworkSettings"]["Networks"].items()):
            veth = self.interface(name, network, endpoint, inside, want["shape"].get(network, [None, None]))
            if veth:
                names.update({veth["ifname"]: "VETH", endpoint["IPAddress"]: "IP", endpoint["MacAddress"]: "MAC"})
                last = bytes.fromhex(endpoint["MacAddress"].replace(":", ""))
                eui = bytes([last[0] ^ 2]) + last[1:3] + b"\xff\xfe" + last[3:]
                names[re.sub(r":0{1,3}", ":", "fe80::" + ":".join(eui[i:i + 2].hex() for i in range(0, 8, 2)).lstrip("0"))] = "LL"
                names["0xfe80000000000000" + eui.hex()] = "LL"
                # A MAC behind the type and the length of an option of neighbour discovery: its sender's, its target's.
                names.update({option + last.hex(): option + "MAC" for option in ("0x101", "0x201")})
        if want["style"]:
            self.filtered[c["Id"][:12]] = (name, want["style"])
            names[c["Id"][:12]] = "ID"
            key = f"{want['style']}, {len(c['NetworkSettings']['Networks'])} interfaces"
            self.normal[key].append((name, self.normalized(c["Id"][:12], names)))

    def normalized(self, short, names):
        out = []
        pattern = re.compile("|".join(re.escape(x) + r"(?![\w.])" for x in sorted(names, key=len, reverse=True)))
        for version, lines in self.host.rules.items():
            for line in lines:
                if short in line and line.startswith("-A"):  # rules, and elements of maps and sets
                    line = pattern.sub(lambda m: names[m[0]], line)
                    line = re.sub(r"TBNODE\.([sdhio])\S*", r"TBNODE.\1", line)
                    out.append(version + " " + re.sub(r"nID-([ph])\d+", r"nID-\1", line))
        return tuple(sorted(out))

    def rules(self):
        for style, nodes in self.normal.items():
            usual = collections.Counter(rules for _, rules in nodes).most_common(1)[0][0]
            for name, rules in nodes:
                if not rules:
                    self.say(f"{name}: no rules of style {style}")
                elif rules != usual:
                    self.say(f"{name}: rules of {style} differ: {sorted(set(rules) ^ set(usual))[:6]}")
        for version, lines in self.host.rules.items():
            owners = {m[1] for line in lines for m in [re.match(r"(?::TBNODE-|:\S+ chain n)([0-9a-f]{12})-", line)] if m}
            owners |= {m[1] for line in lines for m in [re.search(r'comment "([0-9a-f]{12})"', line)] if m}
            for short in owners:
                if short not in self.filtered or (version != "guard" and (version == "nftables") != (self.backend == "nftables")):
                    self.say(f"{version}: rules of {short}, which does not run or is not filtered there")
        if self.filtered:
            self.ways()
        self.dispatch()

    def dispatch(self):
        """Each node is in each map that leads to its chains, also when all are missing there."""
        for short, (name, style) in self.filtered.items():
            inside = ["in4", "in6"] if style != "open" else []
            for version, maps in (("guard", ["group", "peers", "peers4", "peers6"]), ("nftables", ["host4", "host6", "out4", "out6", *inside])):
                lines = [x for x in self.host.rules[version] if f'comment "{short}"' in x]
                gone = [m for m in maps if not any(f" map {m} " in x for x in lines)]
                if gone and (version == "guard" or self.backend == "nftables"):
                    self.say(f"{name}: it is not in {version}'s {gone}")

    def ways(self):
        """That leads to the nodes' rules: nobody else is asked before, and nothing is left out."""
        for version in ("iptables", "ip6tables") if self.backend == "iptables" else ():
            for chain in ("FORWARD", "INPUT"):
                first = [x for x in self.host.rules[version] if x.startswith(f"-A {chain} ")][:1]
                if first != [f"-A {chain} -j TBNODE-{chain}"]:
                    self.say(f"{version}: {chain} does not begin with ours: {first}")
        for version, family, chains in (("guard", "bridge", GUARD), ("nftables", "inet", STYLED)):
            for chain, maps in chains.items() if version == "guard" or self.backend == "nftables" else ():
                mine = [x for x in self.host.rules[version] if x.startswith(f"-A {family} chain {chain} ")]
                used = {m for x in mine for m in re.findall(r"@(\w+)", x)}
                if not maps <= used:
                    self.say(f"{version}: {chain} does not look into {sorted(maps - used)}: {mine}")

    def orphans(self):
        for index, link in self.host.links.items():
            kind = link.get("linkinfo", {}).get("info_kind")
            if index in self.used:
                continue
            if kind == "ifb" and link.get("ifalias", "").startswith("tbnode:"):
                self.say(f"orphan: {link['ifname']} {link['ifalias']}")
            if any(q.get("handle") == ROOT for q in self.host.qdiscs[link["ifname"]]):
                self.say(f"orphan: our root at {link['ifname']}")

    def check(self):
        for c in self.host.containers:
            self.container(c)
        self.rules()
        self.orphans()
        return self.wrong


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        print(json.dumps(Truth(json.load(f), sys.argv[2]).check()))
