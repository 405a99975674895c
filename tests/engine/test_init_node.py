#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""/tbnode/init in a testbed node: main is what it was in the original, beside it the services; runit's commands, signals
and the end of the container."""

import concurrent.futures
import json
import os
import re
import subprocess
import time

import init_images
import lab
from init_images import PATH, PairCase, Terminal, world_of

L = None
KEY = None
BOX = ("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})
HOLD = ("scratch-hold", "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"]})
HOLD_APP = ("busybox-hold", "busybox", {"Entrypoint": ["world"], "Cmd": ["hold"], "User": "app"})
DEBIAN = ("debianroot", "debian", {"Cmd": ["bash"]})


def setUpModule():
    global L, KEY
    L = lab.Lab.get()
    L.dockerd.start(config=init_images.umask_runtimes(L, "000", "077"))
    PairCase.L, PairCase.images = L, init_images.Images(L)
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])


def at_once(function, *items):
    with concurrent.futures.ThreadPoolExecutor(max(1, min(6, len(items)))) as pool:
        return list(pool.map(function, items))


class NodeCase(PairCase):
    def augmented(self, image):
        return self.images.pair(*image)[1]

    def node_options(self, image, conf, user=None, keep_home=None):
        """As the agent does it: root starts the node, and init is told who main is."""
        directory = L.tmp("node")
        user = user or L.docker("image", "inspect", "-f", "{{.Config.User}}", image).out.strip()
        if user:
            conf += f"user={user}\n"
        if keep_home is not None:
            conf += f"keep-home={keep_home}\n"
        with open(f"{directory}/node.conf", "w", encoding="ascii") as f:
            f.write(conf)
        with open(f"{KEY}.pub", encoding="ascii") as f, open(f"{directory}/authorized_keys", "w", encoding="ascii") as g:
            g.write(f.read())
        return [*(["--user", "0"] if user else []), "-v", f"{directory}:/tbnode/run:ro"]

    def start(self, image, conf="on-exit=stay\nnode=n1\nexperiment=e1\n", options=(), command=()):
        image = image if isinstance(image, str) else self.augmented(image)
        container = L.docker("run", "-d", "--hostname", "h", *self.node_options(image, conf), *options, image,
                             *command).out.strip()
        self.addCleanup(L.docker, "rm", "-f", container, check=False)
        return container

    def address(self, container):
        return L.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).out.strip()

    def ssh(self, container, *command, user="root", options=(), **kwargs):
        argv = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                "-o", "BatchMode=yes", *options, f"{user}@{self.address(container)}", *command]
        return L.run(argv, check=False, **kwargs)

    def reachable(self, container):
        lab.wait_for(lambda: self.ssh(container, "true").rc == 0, 30, "sshd")

    def sv(self, container, *words, place="/run/tbnode"):
        r = L.docker("exec", "-e", f"SVDIR={place}/service", container, "/tbnode/bin/sv", *words, check=False)
        return re.sub(r"\d+s", "0s", re.sub(r"\(pid \d+\)", "(pid)", r.out.strip()))

    def in_container(self, container, path):
        """What the agent does: read through /proc/PID/root."""
        try:
            with open(f"/proc/{L.container_pid(container)}/root{path}", encoding="utf-8") as f:
                return f.read()
        except OSError:
            return None

    def wait_status(self, container, wanted):
        lab.wait_for(lambda: self.in_container(container, "/run/tbnode/main.status") == wanted, 30, f"main.status {wanted!r}")

    def output(self, container, lines=1):
        return lab.wait_for(lambda: (lambda x: len(x) >= lines and x)(L.docker("logs", container).out.splitlines()), 30,
                            f"{lines} lines of output")

    def exit_code(self, container):
        return int(L.docker("wait", container, timeout=30).out)

    def stop(self, container):
        """Exit status, and whether the engine had to kill it."""
        started = time.monotonic()
        L.docker("stop", "-t", "20", container)
        return self.exit_code(container), time.monotonic() - started > 15


class Main(NodeCase):
    """main's world is the original's."""

    def compare_nodes(self, cases):
        """cases: (image, docker options for both, SPEC or None, keep_home, original's options)."""
        def run(case):
            image, options, user, keep_home, own = case
            original, augmented = self.images.pair(*image)
            node = self.node_options(augmented, "on-exit=stop\nnode=n\n", user, keep_home)
            return (self.docker_run(original, (*options, *own), ("world",) if image is BOX else ()),
                    self.docker_run(augmented, (*options, *node), ("world",) if image is BOX else ()))

        for image, *_ in cases:
            self.images.pair(*image)
        for case, (original, augmented) in zip(cases, at_once(run, *cases)):
            with self.subTest(case=case):
                worlds = [world_of(r.out) for r in (original, augmented)]
                for world in worlds:
                    # The mount of /tbnode/run is there; with a terminal init leads the session, under --init nobody twice.
                    world.pop("mounts", None)
                    if "-t" in case[1] or "--init" in case[1]:
                        world.pop("leads_session")
                self.assertEqual(worlds[1], worlds[0], augmented)
                self.assertEqual((augmented.rc, augmented.err), (original.rc, original.err))

    def test_users(self):
        specs = ["app", "1000", "1000:3000", "app:extra", "app:4712", "4711", "4711:4712", "4711:other", "root", "0:0",
                 "lost", "1000:extra", ":extra", "bad", "daemon", "root:77", "app:77", "4711:2000"]
        self.compare_nodes([(BOX, (), s, "no", ("--user", s)) for s in specs])

    def test_images_and_options(self):
        worlds = [("world-" + n, b, {"Entrypoint": ["/world" if b != "busybox" else "world"], **c}) for n, b, c in (
            ("root", "busybox", {}), ("app", "busybox", {"User": "app"}), ("scratch", "scratch", {}),
            ("scratchuid", "scratch", {"User": "1000:1000"}), ("debian", "debian", {"User": "www-data:adm", "WorkingDir": "/srv"}))]
        options = [(), ("-t",), ("--init",), ("--read-only",), ("--read-only", "--tmpfs", "/run:noexec"), ("--tmpfs", "/run:noexec"),
                   ("--pid", "host"), ("--security-opt", "no-new-privileges"), ("-i",), ("--group-add", "3000"), ("--group-add", "77"),
                   ("--runtime", "umask-000"), ("--runtime", "umask-077")]
        # A machine may lack rights that a privileged root has to get.
        if self.docker_run(self.images.pair(*BOX)[0], ("--privileged",), ("true",)).rc == 0:
            options.append(("--privileged",))
        self.compare_nodes([(w, o, None, None, ()) for w in worlds for o in options[:3]] +
                           [(w, o, None, None, ()) for w in worlds[:2] for o in options[3:]] +
                           [(worlds[0], ("--cap-drop", "ALL"), None, None, ()), (worlds[2], ("--cap-drop", "ALL"), None, None, ())])

    def test_home_and_environment(self):
        def image(name, *env):
            return (f"env-{name}", "busybox", {"Entrypoint": ["world"], "User": "app", "Env": [PATH, *env]})

        odd = ("odd", "busybox", {"Entrypoint": ["world", "--", "", "a\nb"], "User": "1000", "WorkingDir": "/bin",
                                  "Env": [PATH, "E=", "S=a b  c", "Q='\"$x\\", "N=1\n2", "U=gr\u00fcn", "TBNODE_FDS=3,4"]})
        self.compare_nodes([(image("none"), (), None, "no", ()), (image("set", "HOME=/data"), (), None, None, ()),
                            (image("root", "HOME=/root"), (), None, None, ()), (image("none"), ("-e", "HOME=/root"), None, "yes", ()),
                            (image("set", "HOME=/data"), ("-e", "HOME="), None, "no", ()), (odd, (), None, None, ())])

    def test_standard_input_and_umask(self):
        box = self.augmented(BOX)
        r = L.docker("run", "--rm", "-i", *self.node_options(box, "on-exit=stop\n"), box, "sha256sum", input="x\0y\n" * 50000)
        self.assertEqual(r.out, L.docker("run", "--rm", "-i", self.images.pair(*BOX)[0], "sha256sum", input="x\0y\n" * 50000).out)
        r = L.docker("run", "--rm", *self.node_options(box, "on-exit=stop\n"), box, "sh", "-c", "umask; cat; echo end")
        self.assertEqual("0022\nend\n", r.out)

    def test_what_cannot_run(self):
        for command, code, word in ((("nosuch",), 127, "executable file not found in $PATH"), (("/data/file",), 126, "permission denied"),
                                    (("/bin/nointerp",), 1, "no such file"), (("/data/file/x",), 125, "not a directory")):
            r = self.docker_run(self.augmented(BOX), self.node_options(self.augmented(BOX), "on-exit=stop\n"), command)
            self.assertEqual((code, ""), (r.rc, r.out))
            self.assertIn(word, r.err)
            self.assertEqual(1, len(r.err.splitlines()))
        directory = init_images.noexec_directory(L)
        self.addCleanup(L.run, ["umount", directory])
        original, augmented = self.images.pair(*BOX)
        r = [self.docker_run(i, ("-v", f"{directory}:/n", *o), ("/n/program",))
             for i, o in ((original, ()), (augmented, self.node_options(augmented, "on-exit=stop\n")))]
        self.assertEqual((126, 126, "exec /n/program: permission denied"), (r[0].rc, r[1].rc, r[1].err.strip()))
        self.assertIn(r[1].err.strip(), r[0].err)
        for user, word in (("nosuch", "unable to find user nosuch"), ("app:nosuch", "unable to find group nosuch"), ("x" * 300, "unable")):
            r = self.docker_run(self.augmented(BOX), self.node_options(self.augmented(BOX), "on-exit=stop\n", user), ("world",))
            self.assertEqual((125, ""), (r.rc, r.out))
            self.assertIn(word, r.err)
        app = self.augmented(HOLD_APP)
        r = self.docker_run(app, (*self.node_options(app, "on-exit=stop\n"), "--cap-drop", "ALL"))
        self.assertEqual(125, r.rc)
        self.assertIn("CAP_SETUID", r.err)

    def test_services_have_the_usual_umask(self):
        c = self.start(BOX, options=("--runtime", "umask-077"), command=("sh", "-c", "umask; exec sleep 1000"))
        self.reachable(c)
        self.assertEqual(["0077"], self.output(c))
        self.assertEqual("0022\n", self.ssh(c, "umask").out)
        self.assertEqual("644\n", self.ssh(c, "/tbnode/bin/stat -c %a /run/tbnode/log/messages").out)
        self.assertEqual("run: main: (pid) 0s", re.sub(r"\d+s", "0s", re.sub(r"pid \d+", "pid", self.ssh(c, "sv status main").out.strip())))

    def test_without_root_only_the_program_runs(self):
        c = self.start(BOX, options=("--user", "1000", "--runtime", "umask-077"), command=("sh", "-c", "echo $$; umask; exit 3"))
        self.assertEqual(self.exit_code(c), 3)
        logs = L.docker("logs", c)
        self.assertEqual("1\n0077\n", logs.out)
        self.assertIn("no place to write", logs.err)

    def test_job_control(self):
        box = self.augmented(BOX)
        t = Terminal("run", "--rm", "-it", "--ulimit", "core=0", *self.node_options(box, "on-exit=stop\n"), box, "sh")
        t.expect("# ")
        t.ask("stty size\n", r"33 111\r\n")
        t.stop_and_go_on()
        t.resize(44, 122)
        t.ask("stty size\n", r"44 122\r\n")
        t.know_prompt()
        self.assertEqual((130, 131), (t.signal_child("\x03"), t.signal_child("\x1c")))
        self.assertEqual(9, t.leave("exit 9\n"))

    def test_orphans_are_reaped_at_once(self):
        for options in ((), ("--init",), ("-t",)):
            r = self.docker_run(self.augmented(BOX), (*self.node_options(self.augmented(BOX), "on-exit=stop\n"), *options),
                                ("world", "orphan"))
            self.assertEqual({"zombies": 0}, json.loads(r.out.splitlines()[-1]))

    def test_health_check(self):
        """The agent's wrapper, word for word as agent/run-user.c writes it."""
        test = '["CMD","/tbnode/init","as-user","app","--","/bin/sh","-c","id -u; id -G; echo $HOME; pwd"]'
        image = ("healthy", "busybox", {"Entrypoint": ["world", "hold"], "User": "app", "WorkingDir": "/tmp",
                                        "Healthcheck": {"Test": json.loads(test), "Interval": 10**9}})
        c = self.start(image)
        log = lab.wait_for(lambda: json.loads(L.docker("inspect", "-f", "{{json .State.Health.Log}}", c).out), 30, "a check")
        self.assertEqual((0, "1000\n1000 0 4 79 2000\n/home/app\n/tmp\n"), (log[0]["ExitCode"], log[0]["Output"]))


class Runit(NodeCase):
    def test_stays_when_main_has_ended(self):
        cases = ((("sh", "-c", "exit 3"), "exited 3\n", 3), (("sh", "-c", "kill -9 $$"), "signaled 9\n", 137), (("true",), "exited 0\n", 0))

        def check(case):
            c = self.start(BOX, command=case[0])
            self.wait_status(c, case[1])
            status = self.sv(c, "status", "main")
            return status, self.stop(c), L.docker("logs", c).err

        self.augmented(BOX)
        for case, (status, end, err) in zip(cases, at_once(check, *cases)):
            self.assertEqual(("down: main: 0s, normally up", (case[2], False), ""), (status, end, err))

    def test_on_exit_stop(self):
        cases = ((("sh", "-c", "exit 3"), 3), (("sh", "-c", "kill -6 $$"), 134), (("nosuch",), 127), (("/data/file",), 126))
        self.augmented(BOX)
        codes = at_once(lambda case: self.exit_code(self.start(BOX, "on-exit=stop\n", command=case[0])), *cases)
        self.assertEqual([c[1] for c in cases], codes)

    def test_on_exit_restart(self):
        c = self.start(BOX, "on-exit=restart\n", command=("sh", "-c", "echo run >> /tmp/runs; exec sleep 0.2"))
        lab.wait_for(lambda: (self.in_container(c, "/tmp/runs") or "").count("run") >= 3, 30, "three runs")
        self.assertFalse(self.stop(c)[1])

    def test_commands(self):
        """main is wanted up as long as it runs, and runs again only when somebody says so."""
        c = self.start(BOX, command=("sh", "-c", "echo run >> /tmp/runs; trap 'exit 8' TERM; sleep 1000 & wait"))
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs"), 30, "the first run")
        self.assertEqual("run: main: (pid) 0s", self.sv(c, "status", "main"))
        self.assertEqual("ok: run: main: (pid) 0s", self.sv(c, "restart", "main"))
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs") == "run\nrun\n", 10, "the second run")
        self.assertIsNone(self.in_container(c, "/run/tbnode/main.status"))
        self.assertEqual("run: main: (pid) 0s", self.sv(c, "status", "main"))
        self.assertEqual("ok: down: main: 0s, normally up", self.sv(c, "stop", "main"))
        self.assertEqual("exited 8\n", self.in_container(c, "/run/tbnode/main.status"))
        self.assertEqual("ok: run: main: (pid) 0s", self.sv(c, "start", "main"))
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs") == "run\n" * 3, 10, "the third run")
        # main's own end, and a kill, are no wish to see it again; what ended once can be started.
        for sv, status in (("kill", "signaled 9\n"), ("1", "signaled 10\n")):
            self.sv(c, sv, "main")
            self.wait_status(c, status)
            lab.wait_for(lambda: self.sv(c, "status", "main") == "down: main: 0s, normally up", 10, "main to be down")
            self.sv(c, "restart", "main")
            lab.wait_for(lambda: self.sv(c, "status", "main") == "run: main: (pid) 0s", 10, "main to run")
        self.assertEqual("run\n" * 5, self.in_container(c, "/tmp/runs"))
        self.assertEqual((8, False), self.stop(c))

    def test_commands_send_the_image_s_stop_signal(self):
        image = ("quits", "busybox", {"Entrypoint": ["world"], "Cmd": ["hold"], "User": "app", "StopSignal": "SIGUSR1"})
        c = self.start(image)
        self.output(c)
        self.assertIn("ok: down: main", self.sv(c, "stop", "main"))
        self.assertEqual({"signal": 10}, json.loads(self.output(c, 2)[1]))
        self.sv(c, "start", "main")
        self.output(c, 3)
        self.sv(c, "restart", "main")
        self.assertEqual({"signal": 10}, json.loads(self.output(c, 4)[3]))
        self.output(c, 5)

    def test_supervisors_that_are_killed(self):
        c = self.start(BOX, command=("sh", "-c", "echo run >> /tmp/runs; exec sleep 1000"))
        self.reachable(c)

        def pid(service):
            return self.in_container(c, f"/run/tbnode/service/{service}/supervise/pid")

        main, sshd = pid("main"), pid("sshd")
        L.docker("exec", c, "/tbnode/bin/pkill", "-KILL", "runsv")
        lab.wait_for(lambda: (pid("sshd") or sshd) != sshd, 30, "another sshd")
        self.reachable(c)
        self.assertEqual("", L.docker("exec", c, "sh", "-c", f"ls -d /proc/{sshd.strip()}", check=False).out)
        L.docker("exec", c, "kill", main.strip())
        self.wait_status(c, "signaled 15\n")
        lab.wait_for(lambda: self.sv(c, "status", "main") == "down: main: 0s", 30, "main's supervisor")
        self.sv(c, "start", "main")
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs") == "run\nrun\n", 10, "the second run")
        self.assertEqual((143, False), self.stop(c))

    def test_an_idle_node_sleeps(self):
        c = self.start(HOLD)
        self.reachable(c)

        def switches():
            pids = L.docker("top", c, "-eo", "pid").out.split()[1:]
            counts = {}
            for pid in pids:
                with open(f"/proc/{pid}/status", encoding="ascii") as f:
                    text = f.read()
                counts[re.search(r"Name:\s*(.*)", text).group(1), pid] = re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", text).group(1)
            return counts

        # runsvdir looked every 5 s. The second try is for what the login above still had to do.
        lab.wait_for(lambda: len(switches()) >= 6, 10, "all services")
        for last in (False, True):
            before = switches()
            time.sleep(6.5)
            if switches() == before:
                break
            if last:
                self.assertEqual(before, switches())


class End(NodeCase):
    def test_stop_signals(self):
        signals = {None: 15, "SIGQUIT": 3, "SIGWINCH": 28, "USR1": 10, "SIGINT": 2, "1": 1, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "37": 37,
                   "SIGRTMAX": 64}
        images = [(f"stop-{s}".lower().replace("+", "-"), "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"],
                                                                      **({"StopSignal": s} if s else {})}) for s in signals]
        nodes = [self.start(i) for i in images]
        nodes += [self.start(images[0], options=o) for o in (("--init",), ("--pid", "host"), ("-t",), ("--read-only",))]

        def end(container):
            self.output(container)
            stopped = self.stop(container)
            return json.loads(L.docker("logs", container).out.splitlines()[-1])["signal"], stopped

        wanted = [(n, (0, False)) for n in [*signals.values(), 15, 15, 15, 15]]
        self.assertEqual(wanted, at_once(end, *nodes))

    def test_nothing_is_left(self):
        """What main left running, and what doesn't listen, ends with the node: TERM first, then KILL after 3 s."""
        command = ("sh", "-c", "trap '' HUP; (trap 'sleep 0.3; echo polite; exit' TERM; while :; do sleep 0.1; done) &"
                   "(trap '' TERM; while :; do sleep 0.1; done) & exit 5")

        def check(options):
            c = self.start(BOX, options=options, command=command)
            self.wait_status(c, "exited 5\n")
            return self.stop(c), L.docker("logs", c).out

        options = ((), ("--init",), ("--pid", "host"))
        self.augmented(BOX)
        before = self.processes()
        self.assertEqual([((5, False), "polite\n")] * 3, at_once(check, *options))
        lab.wait_for(lambda: self.processes() == before, 10, "no process of theirs")

    @staticmethod
    def processes():
        r = L.run(["pgrep", "-f", "trap '' TERM"], check=False)
        return r.out.split()

    def test_restart_policy_and_engine_restart(self):
        c = self.start(BOX, "on-exit=stop\n", options=("--restart", "on-failure:2"), command=("sh", "-c", "echo run; exit 3"))
        lab.wait_for(lambda: len(L.docker("logs", c).out.splitlines()) == 3, 30, "three runs")
        lab.wait_for(lambda: L.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", c).out.split()
                     == ["exited", "3", "2"], 30, "the end")

    def test_somebody_logged_in(self):
        c = self.start(HOLD)
        self.reachable(c)
        session = subprocess.Popen(["ssh", "-tt", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                                    f"root@{self.address(c)}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(session.wait)
        self.addCleanup(session.kill)
        session.stdin.write(b"echo in-$((1+1))\n")
        session.stdin.flush()
        while b"in-2" not in session.stdout.readline():
            pass
        self.assertFalse(self.stop(c)[1])
        for stream in (session.stdin, session.stdout, session.stderr):
            stream.close()


class Services(NodeCase):
    def check_login(self, case):
        image, options, place = case
        c = self.start(image, options=options)
        self.reachable(c)
        r = self.ssh(c, "id -u; echo out; echo err >&2; exit 7")
        status = self.ssh(c, "sv status main sshd").out
        tty = self.ssh(c, "tty; exit 3", options=("-tt",))
        # No environment of the container's in a session, and no descriptor of init's.
        leaks = self.ssh(c, "env; ls -l /proc/self/fd").out
        return ((r.rc, r.out, r.err), [line.split(" (")[0] for line in status.splitlines()], (tty.rc, tty.out.strip()),
                "TBNODE" in leaks or "memfd" in leaks, self.sv(c, "status", "main", place=place))

    def test_login(self):
        dev, run = "/dev/.tbnode", "/run/tbnode"
        cases = [(i, o, p) for i in (HOLD, HOLD_APP) for o, p in (((), run), (("--read-only",), dev), (("--init",), run))]
        cases += [(HOLD, ("--cap-drop", "ALL"), run), (HOLD, ("--tmpfs", "/run:noexec"), run), (HOLD, ("--security-opt", "no-new-privileges"), run)]
        for i in (HOLD, HOLD_APP):
            self.augmented(i)
        for case, result in zip(cases, at_once(self.check_login, *cases)):
            with self.subTest(case=case[:2]):
                self.assertEqual(((7, "0\nout\n", "err\n"), ["run: main:", "run: sshd:"], (3, "/dev/pts/0"), False, "run: main: (pid) 0s"),
                                 result)

    def test_debian(self):
        c = self.start(DEBIAN, command=("sleep", "infinity"))
        self.reachable(c)
        r = self.ssh(c, "echo $SHELL $PATH; ls /bin/ls; command -v vi")
        self.assertEqual(r.out, f"/bin/bash {PATH[5:]}:/tbnode/bin\n/bin/ls\n/tbnode/bin/vi\n")
        self.assertEqual(self.ssh(c, "id -un", user="root").out, "root\n")

    def test_users(self):
        c = self.start(HOLD_APP)
        self.reachable(c)
        self.assertEqual(self.ssh(c, "id -u; id -G | tr ' ' '\\n' | sort -nu | tr '\\n' ' '; echo $HOME; echo $SHELL", user="app").out,
                         "1000\n4 1000 2000 /home/app\n/bin/sh\n")
        self.assertEqual(self.ssh(c, "echo $SHELL", user="lost").out, "/tbnode/bin/sh\n")
        self.assertEqual(self.ssh(c, "true", user="daemon").rc, 255, "nologin lets nobody in")
        self.assertEqual(self.ssh(c, "true", user="nosuch").rc, 255)
        r = L.run(["ssh", "-v", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                   "BatchMode=yes", "-i", "/nonexistent", f"root@{self.address(c)}", "true"], check=False)
        self.assertEqual(r.rc, 255)
        self.assertRegex(r.err, r"Authentications that can continue: publickey\s")

    def test_copies_and_many_sessions(self):
        c = self.start(HOLD)
        self.reachable(c)
        directory = L.tmp("copy")
        data = os.urandom(3_000_000)
        with open(f"{directory}/up", "wb") as f:
            f.write(data)
        base = ["scp", "-O", "-q", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        L.run([*base, f"{directory}/up", f"root@{self.address(c)}:/file"])
        L.run([*base, f"root@{self.address(c)}:/file", f"{directory}/down"])
        with open(f"{directory}/down", "rb") as f:
            self.assertEqual(f.read(), data)
        argv = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                f"root@{self.address(c)}", "echo yes"]
        sessions = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(20)]
        self.assertEqual([s.communicate(timeout=60)[0] for s in sessions], [b"yes\n"] * 20)

    def test_restart_keeps_host_keys_and_a_copy_gets_its_own(self):
        def key(container):
            out = L.run(["ssh-keyscan", "-t", "ed25519", self.address(container)], check=False).out
            return out.split()[-1] if out else None

        c = self.start(HOLD)
        self.reachable(c)
        first = key(c)
        L.docker("restart", "-t", "20", c)
        self.reachable(c)
        self.assertEqual(key(c), first)
        L.docker("commit", c, "snapshot:1")
        other = self.start("snapshot:1", "node=n2\nexperiment=e1\n")
        self.reachable(other)
        self.assertNotEqual(key(other), first)

    def test_syslog(self):
        c = self.start(HOLD_APP)
        self.reachable(c)
        self.ssh(c, "logger -t probe 'a line'")
        self.assertIn("probe: a line", self.in_container(c, "/run/tbnode/log/messages"))
        self.assertIn("Pubkey auth succeeded", self.in_container(c, "/run/tbnode/log/messages"))
        self.ssh(c, "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -20000 | logger")
        size = int(self.ssh(c, "du -k /run/tbnode/log | cut -f1").out)
        self.assertLess(size, 700)


if __name__ == "__main__":
    lab.main(debian=True)
