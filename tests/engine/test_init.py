#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""/tbnode/init in a plain container: docker run of the original and of the augmented image, side by side. What a test
compares is all that a program can see of its world (init-world.c), and what docker says of the container."""

import concurrent.futures
import json
import time

import init_images
import lab
from init_images import PATH, PairCase, Terminal

L = None
APP = ("app", "busybox", {"Entrypoint": ["world"], "User": "app"})
ROOT = ("root", "busybox", {"Cmd": ["world", "from", "path"]})
SCRATCH = ("scratch", "scratch", {"Entrypoint": ["/world"], "Cmd": ["a", "b c", ""]})


def setUpModule():
    global L
    L = lab.Lab.get()
    L.dockerd.start(config=init_images.umask_runtimes(L, "000", "077"))
    PairCase.L, PairCase.images = L, init_images.Images(L)


def both(image):
    return PairCase.images.pair(*image)


def at_once(function, *items):
    """function of each item, all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


def inspect(container, template):
    return json.loads(L.docker("inspect", "-f", f"{{{{json {template}}}}}", container).out)


class Worlds(PairCase):
    def test_images(self):
        def box(**config):
            return "busybox", {"Entrypoint": ["world"], **config}

        images = {
            "uid": box(User="1000"),
            "uidgid": box(User="1000:3000"),
            "namegroup": box(User="app:extra"),
            "namegid": box(User="app:4712"),
            "uidgroup": box(User="4711:other"),
            "groupwithanumberforaname": box(User="app:77"),
            "unknownuid": box(User="4711"),
            "unknownboth": box(User="4711:4712"),
            "rootuser": box(User="root"),
            "zerouser": box(User="0:0"),
            "rootgroup": box(User=":extra"),
            "home": box(User="app", Env=[PATH, "HOME=/data"]),
            "roothome": box(User="app", Env=[PATH, "HOME=/root"]),
            "nohome": box(User="app", Env=[PATH, "HOME="]),
            "workdir": box(WorkingDir="/made/by/docker"),
            "workdirapp": box(WorkingDir="/made/by/docker", User="app"),
            "relative": box(Entrypoint=["./world"], WorkingDir="/bin"),
            "odd": box(Entrypoint=["world", "--", "--user", "x"],
                       Env=[PATH, "E=", "S=a b  c", "Q='\"$x\\", "N=1\n2", "U=gr\u00fcn \u2603", "PATHX=1", "_=x"]),
            "script": ("busybox", {"Entrypoint": ["script"], "Cmd": ["x"]}),
            "shellform": ("busybox", {"Entrypoint": ["/bin/sh", "-c", "exec world $0 \"$@\""], "Cmd": ["p", "q r"]}),
            "scratchuid": ("scratch", {"Entrypoint": ["/world"], "User": "1000:1000"}),
            "debian": ("debian", {"Entrypoint": ["/world"], "User": "www-data:adm", "WorkingDir": "/srv"}),
            "debianname": ("debian", {"Cmd": ["bash", "-c", "exec /world \"$@\"", "x", "y"], "User": "backup"}),
        }
        self.compare(((name, *image), (), ()) for name, image in images.items())

    def test_options(self):
        options = [(), ("--init",), ("-t",), ("-i",), ("-t", "--init"), ("--read-only",),
                   ("--read-only", "--tmpfs", "/run"), ("--tmpfs", "/run:noexec"), ("--security-opt", "no-new-privileges"),
                   ("--cap-drop", "ALL"), ("--cap-drop", "ALL", "--cap-add", "KILL"), ("--privileged",), ("--pid", "host"),
                   ("--pid", "host", "--init"), ("--user", "root"), ("--user", "1000"), ("--user", "app:other"),
                   ("--user", "4711:5"), ("--user", "root:77"), ("--runtime", "umask-000"), ("--runtime", "umask-077"), ("--group-add", "3000"), ("--group-add", "other", "--group-add", "77"),
                   ("-e", "HOME=/x"), ("-e", "HOME="), ("-e", "PATH=/bin", "-e", "NEW=1"), ("-w", "/tmp"),
                   ("--ulimit", "nofile=100:200"), ("--network", "none"), ("--ipc", "host"), ("--oom-score-adj", "7"),
                   ("--entrypoint", "/bin/world"), ("--stop-signal", "SIGUSR1")]
        self.compare((image, o, ("world", "z")) for image in (APP, ROOT) for o in options)
        self.compare((SCRATCH, o, ()) for o in ((), ("--init",), ("-t",), ("--read-only",), ("--cap-drop", "ALL")))

    def test_nothing_of_ours_is_there(self):
        command = ("sh", "-c", "echo $$; tr '\\0' ' ' < /proc/1/cmdline; echo /proc/[0-9]*")
        self.assertNotIn("tbnode", self.compare([(ROOT, (), command)])[0][1].out)

    def test_output_and_exit_statuses(self):
        commands = [("echo", "exactly  this"), ("sh", "-c", "echo out; echo err >&2; exit 4"), ("world", "exit", "0"),
                    ("world", "exit", "255"), ("world", "orphan")]
        self.compare((ROOT, o, c) for c in commands for o in ((), ("--init",)))
        # PID 1 survives a signal that it sends itself by default action (the kernel protects it), another process dies of it.
        self.compare((ROOT, o, ("world", "kill", str(n))) for n in (9, 15, 6, 11, 2, 34, 64) for o in ((), ("--init",)))

    def test_standard_input(self):
        def run(image, *command, **kwargs):
            return L.docker("run", "--rm", *command[:1], image, *command[1:], check=False, **kwargs)

        for command in (("-i", "sha256sum"), ("-i", "cat"), ("-i", "head", "-n1"), ("-i", "sh", "-c", "read x; echo $x; exec cat")):
            a, b = at_once(lambda i: run(i, *command, input="some\0bytes\n" * 20000), *both(ROOT))
            self.assertEqual((a.rc, a.out, a.err), (b.rc, b.out, b.err))
            self.assertEqual(0, b.rc)
        # Without -i: the end of the file at once.
        for r in at_once(lambda i: L.docker("run", "--rm", i, "cat"), *both(ROOT)):
            self.assertEqual("", r.out)


class Failures(PairCase):
    """The reason is the engine's for the original and init's for the augmented image: its words, in one line."""

    def check(self, image, options, command):
        original, augmented = at_once(lambda i: self.docker_run(i, options, command), *both(image))
        with self.subTest(image=image[0], options=options, command=command):
            self.assertEqual(augmented.rc, original.rc, (original, augmented))
            self.assertNotEqual(augmented.rc, 0)
            self.assertEqual(augmented.out, "")
            # The client's own log lines ("error waiting for container") come or don't.
            lines = [line for line in augmented.err.splitlines() if not line.startswith("time=")]
            self.assertEqual(len(lines), 1, augmented)
            self.assertIn(lines[0].removeprefix("docker: "), original.err)

    def test_programs_that_cannot_run(self):
        for command in (("nosuch",), ("/no/such",), ("/data/file",), ("/data",), ("file",), ("/data/file/x",), ("/bin/nointerp",),
                        ("/bin/noformat",), ("",)):
            self.check(ROOT, (), command)
        self.check(ROOT, ("-e", "PATH="), ("world",))
        self.check(ROOT, ("-e", "PATH=/nowhere"), ("world",))
        self.check(ROOT, ("-e", "PATH=bin:/nowhere", "-w", "/"), ("world",))
        self.check(APP, ("--entrypoint", "rootonly"), ())
        self.check(("rootonly", "busybox", {"Cmd": ["rootonly"], "User": "app"}), (), ())
        self.check(("toolong", "busybox", {"Cmd": ["/" + "x" * 300]}), (), ())

    def test_programs_where_nothing_may_be_executed(self):
        directory = init_images.noexec_directory(L)
        self.addCleanup(L.run, ["umount", directory])
        mount = ("-v", f"{directory}:/n")
        for options, command in (((), ("/n/program", "true")), ((), ("/n/script",)), (("-e", "PATH=/n:/bin"), ("program",)),
                                 (("--user", "app"), ("/n/program",)), (("-w", "/n"), ("./program",))):
            self.check(ROOT, (*mount, *options), command)

    def test_users_and_commands_that_are_not_there(self):
        self.check(("nobody", "busybox", {"Cmd": ["world"], "User": "nosuch"}), (), ())
        self.check(("nogroup", "busybox", {"Cmd": ["world"], "User": "app:nosuch"}), (), ())
        self.check(("noaccounts", "scratch", {"Cmd": ["/world"], "User": "root"}), (), ())
        self.check(ROOT, ("--user", "4294967296"), ())
        for r in at_once(lambda i: self.docker_run(i), *both(("nothing", "busybox", {}))):
            self.assertEqual(r.rc, 125, r)
            self.assertIn("o command specified", r.err)


class Life(PairCase):
    def start(self, image, *options, command=()):
        """Both, in the background: their ids."""
        ids = [L.docker("run", "-d", *options, i, *command).out.strip() for i in both(image)]
        self.addCleanup(L.docker, "rm", "-f", *ids, check=False)
        return ids

    def stop(self, container):
        lab.wait_for(lambda: L.docker("logs", container).out, 30, "output")
        started = time.monotonic()
        L.docker("stop", "-t", "20", container)
        took = time.monotonic() - started
        lines = L.docker("logs", container).out.splitlines()
        return json.loads(lines[-1]), inspect(container, ".State.ExitCode"), took > 15

    def test_stop_signals(self):
        hold = ("hold", "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"]})
        signals = {None: 15, "SIGQUIT": 3, "SIGWINCH": 28, "USR1": 10, "usr2": 12, "SIGINT": 2, "SIGPWR": 30, "1": 1, "15": 15,
                   "SIGRTMIN": 34, "SIGRTMIN+3": 37, "37": 37, "SIGRTMAX-1": 63, "SIGRTMAX": 64}
        cases = [(n, o) for s, n in signals.items() for o in [("--stop-signal", s) if s else ()]]
        cases += [(37, ("--init", "--stop-signal", "RTMIN+3")), (3, ("-t", "--stop-signal", "QUIT"))]
        started = [(n, o, self.start(hold, *o)) for n, o in cases]
        image = ("holdquit", "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"], "StopSignal": "SIGQUIT"})
        started.append((3, ("in the image",), self.start(image)))
        for (n, options, pair), states in zip(started, at_once(lambda s: [self.stop(c) for c in s[2]], *started)):
            with self.subTest(options=options):
                self.assertEqual(states, [({"signal": n}, 0, False)] * 2)

    def test_a_program_that_does_not_listen_is_killed_like_the_original(self):
        """PID 1 without a handler is deaf for TERM: the engine's time passes, then it is killed."""
        def stop(container):
            started = time.monotonic()
            L.docker("stop", "-t", "2", container)
            return inspect(container, ".State.ExitCode"), time.monotonic() - started >= 1.9

        self.assertEqual(at_once(stop, *self.start(ROOT, command=("sleep", "1000"))), [(137, True)] * 2)
        self.assertEqual(at_once(stop, *self.start(ROOT, "--init", command=("sleep", "1000"))), [(143, False)] * 2)

    def test_restart_policies(self):
        def gave_up(container):
            lab.wait_for(lambda: inspect(container, ".RestartCount") == 2 and
                         inspect(container, ".State.Status") == "exited", 60, "the second restart")
            return inspect(container, ".State.ExitCode"), len(L.docker("logs", container).out.splitlines())

        def goes_on(container):
            lab.wait_for(lambda: inspect(container, ".RestartCount") >= 2, 60, "restarts")
            return inspect(container, ".State.ExitCode")

        failing = self.start(ROOT, "--restart", "on-failure:2", command=("world", "exit", "3"))
        always = self.start(ROOT, "--restart", "always", command=("true",))
        self.assertEqual(at_once(gave_up, *failing), [(3, 3)] * 2)
        self.assertEqual(at_once(goes_on, *always), [0, 0])
        fine = self.start(ROOT, "--restart", "on-failure:2", command=("true",))
        self.assertEqual([L.docker("wait", c).out for c in fine], ["0\n"] * 2)
        self.assertEqual([inspect(c, ".RestartCount") for c in fine], [0, 0])

    def test_docker_exec(self):
        pair = self.start(("execd", "busybox", {"Entrypoint": ["world", "hold"], "User": "app", "Env": [PATH, "X=a\nb"]}))
        for options in ((), ("-u", "root"), ("-u", "4711:5"), ("-w", "/tmp", "-e", "Y=1"), ("-t",)):
            with self.subTest(options=options):
                a, b = at_once(lambda c: L.docker("exec", *options, c, "world"), *pair)
                a, b = (json.loads(x.out) for x in (a, b))
                for world, container in ((a, pair[0]), (b, pair[1])):
                    world["env"] = [e.replace(container[:12], "h") for e in world["env"]]
                self.assertEqual(b, a)

    def test_health_checks(self):
        check = {"Test": ["CMD-SHELL", "id -u; echo $HOME; pwd"], "Interval": 10**9}
        pair = self.start(("health", "busybox", {"Entrypoint": ["world", "hold"], "User": "app", "Healthcheck": check,
                                                 "WorkingDir": "/tmp"}))

        def first(container):
            log = lab.wait_for(lambda: inspect(container, ".State.Health.Log"), 30, "a health check")
            return log[0]["ExitCode"], log[0]["Output"]

        self.assertEqual(at_once(first, *pair), [(0, "1000\n/home/app\n/tmp\n")] * 2)


class Interactive(PairCase):
    def session(self, image, shell, options):
        t = Terminal("run", "--rm", "-it", *options, image, shell)
        t.expect("# ")
        # The client tells the size after the start.
        t.ask("stty size\n", r"33 111\r\n")
        t.stop_and_go_on()
        t.resize(44, 122)
        t.ask("stty size\n", r"44 122\r\n")
        if shell == "bash":  # busybox' line editor keeps the signal for itself
            t.send("trap 'echo resized' WINCH; echo re''ady\n")
            t.expect(r"ready\r\n")
            t.resize(45, 123)
            t.ask("echo\n", r"resized\r\n")
        # What is typed before the prompt is thrown away by a line editor that then turns the terminal over (TCSAFLUSH).
        t.know_prompt()
        statuses = t.signal_child("\x03"), t.signal_child("\x1c")
        if statuses != (130, 131):
            raise AssertionError(f"Ctrl-C and Ctrl-\\ gave {statuses}")
        return t.leave("exit 9\n")

    def test_shell_with_job_control(self):
        images = [(i, "sh") for i in both(ROOT)] + [(i, "bash") for i in both(("debianroot", "debian", {"Cmd": ["bash"]}))]
        runs = [(*i, ("--ulimit", "core=0", *o)) for i in images for o in ((), ("--init",))]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for run, status in [(r, pool.submit(self.session, *r)) for r in runs]:
                with self.subTest(run=run):
                    self.assertEqual(9, status.result())

    def test_detach_and_attach(self):
        def session(image):
            t = Terminal("run", "-it", "--name", image.replace(":", "-"), image, "sh")
            t.expect("# ")
            t.send("V=kept\n\x10\x11")
            self.assertEqual(0, t.close())
            t = Terminal("attach", image.replace(":", "-"))
            t.ask("echo still-$V\n", r"still-kept\r\n")
            t.send("exit 5\n")
            return t.close()

        try:
            self.assertEqual(at_once(session, *both(ROOT)), [5, 5])
        finally:
            L.docker("rm", "-f", *(i.replace(":", "-") for i in both(ROOT)), check=False)

    def test_the_end_of_the_terminal(self):
        """Its hang-up ends the shell, and so the container."""
        def session(image):
            t = Terminal("run", "-it", "--rm", "--name", image.replace(":", "-"), image, "sh")
            t.ask("trap 'exit 7' HUP; echo re''ady\n", r"ready\r\n")
            t.send("\x04")
            return t.close()

        self.assertEqual(len(set(at_once(session, *both(ROOT)))), 1)


class UserNamespaces(PairCase):
    """Last: the engine is started anew, with --userns-remap."""

    def test_remapped(self):
        L.dockerd.stop()
        for name in ("subuid", "subgid"):
            with open(f"/etc/{name}", "a", encoding="ascii") as f:
                f.write("nobody:231072:65536\n")
        L.run(["groupadd", "-f", "nobody"], check=False)
        try:
            L.dockerd.start(config={"userns-remap": "nobody"})
        except lab.LabError as e:
            L.dockerd.start()
            self.skipTest(f"the engine can't remap users here: {str(e).splitlines()[-1]}")
        PairCase.images = init_images.Images(L)
        self.addCleanup(self.normal)
        results = self.compare((i, o, ()) for i in (APP, SCRATCH, ("root2", "busybox", {"Entrypoint": ["world"]}))
                               for o in ((), ("-t",), ("--read-only",), ("--init",)))
        self.assertIn('"uid":1000', results[0][1].out)
        r = self.docker_run(both(ROOT)[1], (), ("cat", "/proc/self/uid_map"))
        self.assertEqual(["0", "231072", "65536"], r.out.split())

    @staticmethod
    def normal():
        L.dockerd.stop()
        L.dockerd.start()
        PairCase.images = init_images.Images(L)


if __name__ == "__main__":
    lab.main(debian=True)
