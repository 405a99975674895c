# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running programs: one-shot commands with a time limit, and services with a log and a readiness signal."""

import json
import os
import select
import signal
import socket
import subprocess
import time


class LabError(Exception):
    """Something of the laboratory itself failed (not the product under test)."""


class Result:
    """Outcome of a command: rc (negative: signal), out, err."""

    def __init__(self, argv, rc, out, err, seconds):
        self.argv, self.rc, self.out, self.err, self.seconds = argv, rc, out, err, seconds

    def json(self):
        """The one JSON value on stdout; anything else there is an error."""
        try:
            return json.loads(self.out)
        except ValueError as e:
            raise LabError(f"not one JSON value on stdout ({e}): {self}") from e

    def __str__(self):
        return f"{' '.join(map(str, self.argv))}: exit {self.rc}\nstdout: {self.out}\nstderr: {self.err}"

    __repr__ = __str__


def run(argv, check=True, timeout=60, input=None, env=None, cwd=None, binary=False):
    """Runs argv; env adds to the environment. check: raise unless it exits with 0. Raises when the time is over."""
    argv = [str(a) for a in argv]
    full = dict(os.environ, **{k: str(v) for k, v in (env or {}).items()})
    if isinstance(input, str) and binary:
        input = input.encode()
    start = time.monotonic()
    try:
        p = subprocess.run(argv, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                           env=full, cwd=cwd, text=not binary, errors=None if binary else "replace",
                           stdin=subprocess.DEVNULL if input is None else None)
    except subprocess.TimeoutExpired as e:
        raise LabError(f"{' '.join(argv)}: no end after {timeout} s\n{e.stdout}\n{e.stderr}") from e
    except OSError as e:
        raise LabError(f"{' '.join(argv)}: {e}") from e
    r = Result(argv, p.returncode, p.stdout, p.stderr, time.monotonic() - start)
    if check and r.rc != 0:
        raise LabError(str(r))
    return r


# Limits are said as a quiet machine needs them; a loaded one with two programs at a time is slower, not wrong.
PATIENCE = 3


def wait_for(function, timeout=10, what="the condition"):
    """Returns function()'s first true value. For states that nothing announces; tests of events wait on the event."""
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        begun = time.monotonic()
        value = function()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            raise LabError(f"waited {timeout} s for {what}")
        # Who looks by running a program leaves the processor to what he waits for, for as long as that took.
        time.sleep(min(max(0.02, now - begun), 0.25))


def reader(fd):
    """A function that waits until what comes from fd, since the first call, has a text; gives all of it. For terminals."""
    seen = bytearray()

    def until(text):
        def found():
            if text not in seen and select.select([fd], [], [], 0.1)[0]:
                seen.extend(os.read(fd, 4096))
            return text in seen
        wait_for(found, 30, f"{text} in {bytes(seen)}")
        return bytes(seen)
    return until


def one_line(case, result, status, *words):
    """A program that fails says so in one line, with these words in it, and prints nothing else."""
    case.assertEqual(status, result.rc, result)
    case.assertEqual("", result.out)
    case.assertEqual(1, len(result.err.splitlines()), result)
    for w in words:
        case.assertIn(w, result.err)


class Service:
    """A long-running program. Its output goes to a log file; readiness comes by sd_notify or by a probe function."""

    def __init__(self, name, log_path):
        self.name, self.log_path = name, str(log_path)
        self.process = None
        self.argv = []

    @property
    def pid(self):
        return self.process.pid if self.process else None

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def spawn(self, argv, env=None, notify=False, probe=None, timeout=30, clear=()):
        """Starts argv and waits until it is ready: READY=1 on NOTIFY_SOCKET, or probe() is true.
        Raises with the log's tail when it exits before or the time is over."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        self.argv = [str(a) for a in argv]
        full = dict(os.environ, **{k: str(v) for k, v in (env or {}).items()})
        for k in clear:
            full.pop(k, None)
        sock = None
        if notify:
            path = f"{self.log_path}.notify"
            if os.path.exists(path):
                os.unlink(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            sock.bind(path)
            full["NOTIFY_SOCKET"] = path
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=full,
                                            start_new_session=True)
        end = time.monotonic() + timeout
        try:
            while not (self._notified(sock) if notify else (probe is None or probe())):
                if self.process.poll() is not None:
                    raise LabError(f"{self.name} ended at start with {self.process.returncode}\n{self.log_tail()}")
                if time.monotonic() > end:
                    raise LabError(f"{self.name} is not ready after {timeout} s\n{self.log_tail()}")
                if not notify:
                    time.sleep(0.02)
        except LabError:
            self.kill()
            raise
        finally:
            if sock:
                sock.close()

    @staticmethod
    def _notified(sock):
        if not select.select([sock], [], [], 0.05)[0]:
            return False
        return any(line == b"READY=1" for line in sock.recv(4096).split(b"\n"))

    def signal(self, number):
        if self.running:
            self.process.send_signal(number)

    def wait(self, timeout=20):
        """Its exit status; raises when it does not end in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as e:
            raise LabError(f"{self.name} did not end within {timeout} s\n{self.log_tail()}") from e

    def stop(self, timeout=20):
        """SIGTERM, waits, returns the exit status (None: it did not run)."""
        if not self.process:
            return None
        self.signal(signal.SIGTERM)
        rc = self.wait(timeout)
        self.process = None
        return rc

    def kill(self):
        """SIGKILL, as the out-of-memory killer would."""
        if self.process:
            self.signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=30):
        return "\n".join(f"  {self.name}| {line}" for line in self.log().splitlines()[-lines:])
