#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The matrix: images of every family and real services, each as the original and augmented, with the same docker command
lines. Any difference that augment/client/README.md does not know is a failure. Then each augmented image as a node.

The images are in labkit/families.py (our own program, which dumps its world) and labkit/services.py (programs from
Debian's packages, in images whose configuration and entrypoint have the shape of the official ones). One test case per
image; the work of all is done by a few threads beforehand. At the end a table, also in the build folder (matrix.txt).
"""

import concurrent.futures
import fnmatch
import json
import os
import re
import sys
import time
import traceback
import unittest

import lab
from labkit import procworld
from labkit.container import Container
from labkit.families import Parts
from labkit.fixture import Line, Store
from labkit.packages import Layer
from labkit import services, sixty

L = None
KEY = None
WORKERS = 4
FIXTURES, FILES = {}, {}    # by name of the test case; layers that were made outside
OUTCOMES = {}               # futures, by the image's name
LEVELS = ("basic", "core")  # the lower ones are run only in long runs: test_init.py does that, with images of its own
LONG = os.environ.get("TBNODE_TEST_LONG") == "yes"
# What Go's os/signal blocks in the thread that it waits in: by chance that is the first one, which /proc shows.
GO_SIGNAL_THREAD = "fffffffc3bba3a00"


class Difference(Exception):
    """The augmented image does not do what the original does."""


def same(what, original, augmented):
    if original != augmented:
        if isinstance(original, dict) and isinstance(augmented, dict):
            keys = [k for k in {**original, **augmented} if original.get(k) != augmented.get(k)]
            original, augmented = ({k: d.get(k) for k in keys} for d in (original, augmented))
        raise Difference(f"{what}: the original has\n  {original!r}\nthe augmented image\n  {augmented!r}")


# ---- plain runs ------------------------------------------------------------------------------------------------


def volatile(text, line=Line()):
    """Output without what is new in every run: container ids, and what docker's client says of itself now and then."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r'^time="[^\n]* msg="error waiting for container: [^\n]*\n', "", text, flags=re.M)
    for pattern, replacement in line.ignore:
        text = re.sub(pattern, replacement, text)
    return text


def world_of(text):
    """(the world of the first line, the rest)."""
    first, _, rest = text.partition("\n")
    if first.startswith('{"uid"'):
        world = json.loads(first.strip())
        world["mounts"].sort()  # the engine has no order for volumes
        return world, rest
    return None, text


def run_line(image, fixture, line, more=()):
    return L.docker("run", "--rm", "--hostname", f"n-{fixture.name}", *(("-i",) if line.stdin is not None else ()), *fixture.options,
                    *more, *line.options, image, *line.command, check=False, input=line.stdin, timeout=120)


def compare_line(fixture, line, original, image, more=()):
    """more: options that both get, too."""
    what = f"docker run {' '.join(line.options)} {fixture.name} {' '.join(line.command)}"
    a, b = run_line(original, fixture, line, more), run_line(image, fixture, line, more)
    (world_a, out_a), (world_b, out_b) = world_of(a.out), world_of(b.out)
    if (world_a is None) != (world_b is None):
        raise Difference(f"{what}: only one of them runs\n  {str(a)[:600]}\n  {str(b)[:600]}")
    if world_a and "-e" in line.options:  # the engine has no order for these
        world_a["env"], world_b["env"] = sorted(world_a["env"]), sorted(world_b["env"])
    same(f"{what}: the world", world_a, world_b)
    same(f"{what}: stdout", volatile(out_a, line), volatile(out_b, line))
    same(f"{what}: exit code", a.rc, b.rc)
    err_a, err_b = volatile(a.err, line), volatile(b.err, line)
    if err_a != err_b and ("OCI runtime create failed" in err_a or "No command specified" in err_a):
        # The program is started by our init: the same status, and one line that says why, instead of the runtime's.
        if len([x for x in err_b.splitlines() if x]) != 1:
            raise Difference(f"{what}: stderr should be one line, it is {err_b!r}")
        return
    same(f"{what}: stderr", err_a, err_b)


def compare_config(fixture, original, image):
    """docker inspect: everything of the image's configuration, but for what is documented."""
    a, b = (L.dockerd.request("GET", f"/images/{i}/json")[1] for i in (original, image))
    ca, cb = a["Config"], b["Config"]
    entry_a, entry_b = ca.pop("Entrypoint") or [], cb.pop("Entrypoint") or []
    if entry_b[-len(entry_a):] != entry_a and entry_a:
        raise Difference(f"Entrypoint {entry_b} does not end with {entry_a}")
    ours = ("org.tbnode.", "org.opencontainers.image.base.")
    labels = {k: v for k, v in (cb.get("Labels") or {}).items() if not k.startswith(ours)}
    same("Labels", ca.pop("Labels", None) or {}, labels)
    cb.pop("Labels", None)
    for volatile_key in ("Image", "Hostname"):
        ca.pop(volatile_key, None), cb.pop(volatile_key, None)
    strip = lambda c: {k: v for k, v in c.items() if v not in (None, [], {}, "", False)}  # noqa: E731
    same("docker inspect", strip(ca), strip(cb))
    same("Cmd", ca.get("Cmd") or [], cb.get("Cmd") or [])
    same("layers", a["RootFS"]["Layers"], b["RootFS"]["Layers"][:len(a["RootFS"]["Layers"])])


def background(fixture, image, hostname):
    options = ("--hostname", hostname, *fixture.options)
    return Container.run(L, image, options, fixture.command)


def process_of(container, tells):
    """main as /proc shows it. tells: it has told its signals itself, when it started; now it waits for one."""
    process = procworld.world(container.main)
    # Programs that tell their workers about themselves (haproxy) do so in their environment.
    process["environ"] = [re.sub(r"\b(pid|timestamp)=[0-9]+", r"\1=N", e) for e in process["environ"]]
    if process.get("SigBlk") == GO_SIGNAL_THREAD:
        process["SigBlk"] = "0" * 16
    return {k: v for k, v in process.items() if not (tells and k.startswith("Sig"))}


def settle(function, wanted, timeout=15):
    """(function()'s value, the wanted one) as soon as they are the same; the last ones when that does not happen. A program
    that answers already may still be on its way to where it stays."""
    end = time.monotonic() + timeout
    while (pair := (function(), wanted()))[0] != pair[1] and time.monotonic() < end:
        time.sleep(0.1)
    return pair


def snapshot(fixture, container, original=None):
    """What can be seen of a running container, to be compared; with another one's process as soon as it is the same."""
    seen = {"answers": volatile(fixture.ask(container))}
    world, rest = world_of(seen["answers"])
    if world:
        seen["answers"], seen["world"] = rest, world
    own = lambda: process_of(container, bool(world))  # noqa: E731
    seen["process"] = settle(own, original or own)[0]
    return seen


def compare_background(fixture, original, image, row):
    """Both in the background: answers, processes, health, what `docker exec` is, the end."""
    a, b = (background(fixture, i, f"n-{fixture.name}") for i in (original, image))
    try:
        seen = [snapshot(fixture, c) for c in (a, b)]
        tells = "world" in seen[0]
        both = settle(*(lambda c=c: process_of(c, tells) for c in (a, b)))
        for s, process in zip(seen, both):
            s["process"] = process
        row["original"] = seen[0]
        row["answers"] = True
        for key in seen[0]:
            same(key, seen[0][key], seen[1][key])
        lab.wait_for(lambda: procworld.census(a.main) == procworld.census(b.main) or None, 15,
                     f"the same processes: {procworld.census(a.main)} {procworld.census(b.main)}")
        same("changed files", *(c.diff() for c in (a, b)))
        same("health", *(c.health() for c in (a, b)))
        if fixture.family.split(",")[0] != "scratch":
            others = ((("-u", "0"), ("id",)), ((), ("no-such",))) if LONG or fixture.docker_builder else ()
            for options, argv in (((), ("sh", "-c", "id; pwd; env | sort; exit 3")), *others):
                ra, rb = (c.exec(*argv, options=options) for c in (a, b))
                same(f"docker exec {argv}", (ra.rc, ra.out, volatile(ra.err)), (rb.rc, rb.out, volatile(rb.err)))
        stops = [c.stop(fixture.stop_timeout) for c in (a, b)]
        row["stop"] = stops[0][0]
        row["seconds"] = [s[1] for s in stops]
        same("exit code of docker stop", stops[0][0], stops[1][0])
        if stops[1][1] > max(2 * stops[0][1], stops[0][1] + 5):
            raise Difference(f"docker stop took {stops[1][1]:.1f} s, the original {stops[0][1]:.1f} s")
        if fixture.log:
            logs = [fixture.log(c) for c in (a, b)]
            row["log"] = logs[0]
            same("the log", *logs)
    finally:
        a.remove()
        b.remove()


# ---- nodes -----------------------------------------------------------------------------------------------------


def ssh(name, command):
    return L.tbnode("ssh", "-i", KEY, name, command)


def run_node(fixture, level, row):
    """The augmented image through the agent: answers, log-in, what main is, an orderly end."""
    name = f"n-{fixture.name}"
    command = fixture.node_command or fixture.command
    r = L.tbnode("run", "--json", "--name", name, "--level", level, "--ssh-key", f"{KEY}.pub", *fixture.options,
                 fixture.reference, *command)
    if r.rc != 0:
        raise Difference(f"tbnode run: {r}")
    container = Container(L, r.json()["id"])
    try:
        row["level"] = container.inspect()["Config"]["Labels"].get("org.tbnode.level")
        ends = not fixture.ask
        if not ends:
            node_main(fixture, container, row)
        row["node-ssh"] = node_ssh(name)
        if level == "core":
            row["client"] = node_client(name)
        if ends:
            expected = run_line(fixture.reference, fixture, Line(command=command)).rc
            main = lab.wait_for(lambda: status_of_main(name, "exited"), 15, "the status of main")
            same("the status of main", f"exited {expected}", main)
        else:
            same("an end of main that is reported", None, status_of_main(name) or None)
        row["main"] = True
        started = time.monotonic()
        r = L.tbnode("stop", name)
        took = time.monotonic() - started
        if r.rc != 0:
            raise Difference(f"tbnode stop: {r}")
        if not ends:
            code = container.exit_code()
            # README: main isn't PID 1 in a node, so that what kills by default does kill.
            if not (row["stop"] == 137 and code == 143):
                same("exit code of the node", row["stop"], code)
            if fixture.log:
                same("the node's log", row["log"], without_tini(fixture.log(container)))
            if took > max(2 * row["seconds"][0], row["seconds"][0] + 6):
                raise Difference(f"tbnode stop took {took:.1f} s, docker stop of the original {row['seconds'][0]:.1f} s")
        row["node-stop"] = True
    finally:
        L.tbnode("rm", name)


def without_tini(log):
    """README: tini says when it is not PID 1, as it isn't in a node."""
    strip = lambda text: re.sub(r"\[WARN  tini \([0-9]+\)\] Tini is not running as PID 1[^\n]*\n[^\n]*\n[^\n]*\n", "", text)  # noqa: E731
    return tuple(strip(part) if isinstance(part, str) else part for part in log) if isinstance(log, tuple) else log


def status_of_main(name, prefix=""):
    main = L.tbnode("inspect", "--json", name).json().get("main") or ""
    return main if main.startswith(prefix) else None


def node_ssh(name):
    command = "echo in-$((40+2)); echo err >&2; /tbnode/bin/sv status sshd; exit 7"
    r = lab.wait_for(lambda: (lambda r: r if r.rc != 255 else None)(ssh(name, command)), 20, "sshd")
    first, _, status = r.out.partition("\n")
    same("ssh", (7, "in-42", "err\n"), (r.rc, first, r.err))
    if "run: sshd:" not in status:
        raise Difference(f"sv status sshd: {r}")
    return True


def node_client(name):
    """Level core: the client has set the node up and said so, and people in the node can ask it."""
    state = lambda: L.tbnode("inspect", "--json", name).json().get("client_state")  # noqa: E731
    try:
        lab.wait_for(lambda: state() == "up", 20, "the client to be up")
    except lab.LabError as e:
        raise Difference(f"{e}: its state is {state()}") from e
    r = ssh(name, "/tbnode/bin/tmcc nodeid")
    same("tmcc nodeid", (0, name), (r.rc, r.out.strip()))
    return True


def node_main(fixture, container, row):
    """main as the original's program was, but for the terminal (none) and what a node mounts."""
    original = row.get("original")
    if original is None:  # another command as a node: the original with the same one
        plain = Container.run(L, fixture.reference, ("--hostname", f"n-{fixture.name}", *fixture.options), fixture.node_command)
        try:
            original = snapshot(fixture, plain)
            row["stop"], took = plain.stop(fixture.stop_timeout)
            row["seconds"] = [took]
            row["log"] = fixture.log(plain) if fixture.log else None
        finally:
            plain.remove()
    seen = snapshot(fixture, container, lambda: original["process"])
    for s in (seen, original):
        if "world" in s:
            s["world"] = {k: v for k, v in s["world"].items() if k not in ("mounts", "leads_session")}
    for key in original:
        same(f"as a node, {key}", original[key], seen[key])


# ---- all of one image ------------------------------------------------------------------------------------------


def augment(reference, *options):
    r = L.tbnode("augment", "--json", *options, reference)
    if r.rc != 0:
        raise Difference(f"tbnode augment {' '.join(options)}: {r.err.strip()}")
    return r.json()["image"]


def pull(image):
    L.docker("pull", "-q", image)
    return image


def levels():
    """The levels that this build has a payload for."""
    with open(f"{L.dir}/payload/amd64/payload.json", encoding="utf-8") as f:
        known = f.read()
    return [level for level in LEVELS if level == "basic" or f"{level}.tar.gz" in known]


class Outcome:
    """What was found about one image."""

    def __init__(self, fixture):
        self.fixture, self.failures, self.row, self.seconds, self.total = fixture, {}, {}, {}, 0

    def step(self, name, function, *args):
        """Runs one aspect; what goes wrong is kept, so that the others are still looked at."""
        started = time.monotonic()
        try:
            function(*args)
        except (Difference, lab.LabError, AssertionError, OSError, KeyError, ValueError) as e:
            trace = "" if isinstance(e, Difference) else traceback.format_exc()
            self.failures[name] = f"{e}\n{trace}"
        self.seconds[name] = round(time.monotonic() - started, 1)

    def work(self):
        started = time.monotonic()
        self.all()
        self.total = time.monotonic() - started
        return self

    def all(self):
        f = self.fixture
        original = pull(f.reference)
        for level in [x for x in levels() if x in f.levels]:
            self.step(f"config {level}", self.variant, level, original, level == levels()[-1])
        if f.docker_builder:
            self.step("docker builder", self.docker_built, original)
        if f.node:
            self.step("node", run_node, f, levels()[-1], self.row)

    def variant(self, level, original, thorough):
        f = self.fixture
        image = pull(augment(f.reference, "--level", level))
        self.step(f"inspect {level}", compare_config, f, original, image)
        if not thorough and not LONG:
            return
        for i, line in enumerate(f.lines if thorough else f.lines[:1]):
            # The engine's default network costs as much as the rest of a container: the first one has it.
            more = ("--network", "none") if i > 0 and "--network" not in (*f.options, *line.options) else ()
            self.step(f"line {level} {i}", compare_line, f, line, original, image, more)
        if f.ask and not f.node_command and (thorough or not f.lines):
            self.step(f"run {level}", compare_background, f, original, image, self.row)

    def docker_built(self, original):
        image = pull(augment(self.fixture.reference, "--level", levels()[-1], "--builder", "docker", "--update"))
        compare_config(self.fixture, original, image)
        for line in self.fixture.lines[:2]:
            compare_line(self.fixture, line, original, image)

    # ---- the table ----

    def cells(self):
        f = self.fixture
        failed = lambda *names: any(k.startswith(names) for k in self.failures)  # noqa: E731
        mark = lambda good: "yes" if good else "NO"  # noqa: E731
        plain = mark(not failed("config", "inspect", "line", "run", "docker"))
        answers = "-" if not f.ask else mark(not failed("run"))
        if not f.node:
            return plain, answers, "-", "-", "-", "-"
        client = mark("client" in self.row) if levels()[-1] == "core" else "-"
        return (plain, answers, mark("node-ssh" in self.row), client, mark("main" in self.row),
                mark("node-stop" in self.row))

    @property
    def works(self):
        return not self.failures


class Matrix(unittest.TestCase):
    """One case per image; see load_tests."""

    def check(self, fixture):
        outcome = OUTCOMES[fixture.name].result()
        if outcome.failures:
            self.fail("\n".join(f"{k}: {v}" for k, v in outcome.failures.items()))


def load_tests(loader, _tests, _pattern):
    """Makes a case for each image, and knows by -k which images are wanted."""
    global L, FILES
    L = lab.Lab.get()
    FILES = json.loads(os.environ["TBNODE_LAB_FIXTURES"])
    parts = Parts(L, os.environ["TBNODE_LAB_DEBIAN"], {name: Layer(path) for name, path in FILES.items()})
    for f in [*services.fixtures(parts), *parts.fixtures(), *sixty.Sixty(parts).fixtures()]:
        name = f"test_{f.name.replace('-', '_')}"
        FIXTURES[name] = f
        setattr(Matrix, name, lambda self, f=f: self.check(f))
    return loader.loadTestsFromTestCase(Matrix)


def setUpModule():
    global KEY, POOL
    L.tbnoded.start(config={"start-timeout": "60s"})
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
    patterns = [sys.argv[i + 1] for i, a in enumerate(sys.argv[:-1]) if a == "-k"]
    wanted = [f for name, f in FIXTURES.items() if not patterns or any(fnmatch.fnmatch(name, f"*{p}*") for p in patterns)]
    store = Store(L.local, FILES)
    for f in wanted:
        f.reference = store.push(f)
    POOL = concurrent.futures.ThreadPoolExecutor(WORKERS)
    for f in wanted:
        OUTCOMES[f.name] = POOL.submit(lambda f=f: Outcome(f).work())


def tearDownModule():
    POOL.shutdown(cancel_futures=True)
    outcomes = [f.result() for f in OUTCOMES.values() if f.done() and not f.cancelled() and not f.exception()]
    text = table(outcomes)
    with open(f"{L.build}/matrix.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(text) + "\n")
    steps = sorted(((t, o.fixture.name, step) for o in outcomes for step, t in o.seconds.items()), reverse=True)
    with open(f"{L.build}/matrix-times.json", "w", encoding="utf-8") as f:
        json.dump(steps, f, indent=0)
    for line in text:
        print(f"# show: {line}")
    sys.stdout.flush()


def table(outcomes):
    lines = [f"{'image':<22} {'family':<22} {'program':<12} {'plain':<6} {'answers':<8} {'ssh':<4} {'client':<6} {'main':<5} {'stop':<5} {'s':>5} verdict"]
    for o in sorted(outcomes, key=lambda o: (o.fixture.family, o.fixture.name)):
        plain, answers, ssh_, client, main, stop = o.cells()
        verdict = "works" if o.works else "missing: " + ", ".join(sorted(o.failures))
        lines.append(f"{o.fixture.name:<22} {o.fixture.family:<22} {o.fixture.program:<12} {plain:<6} {answers:<8} {ssh_:<4} {client:<6} "
                     f"{main:<5} {stop:<5} {o.total:>5.0f} {verdict}")
    good = sum(o.works for o in outcomes)
    lines.append(f"levels: {', '.join(levels())}; as a node at level {levels()[-1]}")
    lines.append(f"images tried: {len(OUTCOMES)}, fully working: {good}, "
                 f"as a node: {sum('node-stop' in o.row for o in outcomes)} of {sum(o.fixture.node for o in outcomes)}, "
                 f"not: {', '.join(o.fixture.name for o in outcomes if not o.works) or 'none'}")
    return [*lines, "", *sixty.table({o.fixture.name: o for o in outcomes})]


if __name__ == "__main__":
    lab.main(debian=True, layers=services.LAYERS)
