#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test machine itself: it boots Debian's kernel, netem works there, and `run` keeps its promises."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tbvm.machine import last_words

RUN = Path(__file__).resolve().parent / 'run'


def run(*arguments, **options):
    options.setdefault('stdin', subprocess.DEVNULL)
    return subprocess.run([RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          **options)


def bare(*arguments, **options):
    """Without the modules, which what is promised does not need: a second less."""
    return run('--no-preload', *arguments, **options)


def machines_of(pid):
    """Process ids of the QEMUs that a run started (children of it; none once they are gone)."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            number, name, state, parent = re.match(r'(\d+) \((.*)\) (\S) (\d+)', stat.read_text(), re.S).groups()
        except OSError:
            continue
        if int(parent) == pid and name.startswith('qemu') and state != 'Z':
            found.append(int(number))
    return found


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Smoke(unittest.TestCase):
    def test_netem_on_debians_kernel(self):
        script = 'uname -v && cat /proc/sys/kernel/tainted && tc qdisc add dev lo root netem delay 10ms && ' \
                 'tc -j qdisc show dev lo && ping -q -c 5 -i 0.2 127.0.0.1'
        done = run('--', 'sh', '-c', script)
        self.assertEqual(done.returncode, 0, done.stderr)
        version, tainted, qdiscs, *ping = done.stdout.splitlines()
        self.assertIn('Debian', version)
        self.assertEqual(tainted, '0')
        root = json.loads(qdiscs)[0]
        self.assertEqual((root['kind'], root['options']['delay']['delay']), ('netem', 0.01))
        # Echo request and reply each wait once.
        self.assertGreaterEqual(float(re.search(r'= ([\d.]+)/', '\n'.join(ping)).group(1)), 20.0, ping)

    def test_clock_is_fine_enough_for_netem(self):
        """Without high-resolution timers every delay would be rounded to ticks of 4 ms."""
        done = run('--', 'sh', '-c', 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource && '
                   'grep -m1 resolution /proc/timer_list && nproc')
        self.assertEqual(done.returncode, 0, done.stderr)
        clock, resolution, cores = done.stdout.splitlines()
        self.assertIn(clock.strip(), ('tsc', 'tsc-early', 'hpet', 'acpi_pm'))
        self.assertEqual(resolution.split(), ['.resolution:', '1', 'nsecs'])
        self.assertEqual(cores, '2')


class Promises(unittest.TestCase):
    def test_exit_status_and_streams(self):
        with tempfile.NamedTemporaryFile(dir='/var/tmp') as log:
            done = bare('--log', log.name, '--', 'sh', '-c', 'echo out; echo err >&2; echo again >/dev/stdout; exit 7')
            self.assertEqual((done.returncode, done.stdout, done.stderr), (7, 'out\nagain\n', 'err\n'))
            self.assertIn('reboot:', Path(log.name).read_text())

    def test_signal_and_missing_command(self):
        # Not ignored, as it would be for a shell's background job.
        self.assertEqual(bare('--', 'sh', '-c', 'kill -INT $$').returncode, 130)
        self.assertEqual(bare('--', '/nonexistent/command').returncode, 127)

    def test_standard_input_whole(self):
        text = '\n'.join(str(i) for i in range(200000))
        done = bare('--', 'cat', stdin=None, input=text)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout == text, f'{len(done.stdout)} of {len(text)} characters came back')

    def test_background_processes_do_not_hold_it(self):
        done = bare('--', 'sh', '-c', 'sleep 1000 & echo started; exit 4')
        self.assertEqual((done.returncode, done.stdout), (4, 'started\n'))

    def test_directory_environment_and_arguments(self):
        with tempfile.TemporaryDirectory(dir='/var/tmp') as here:
            done = bare('--', 'sh', '-c', 'pwd; printf "%s|" "$TBVM_TEST" "$@"', 'sh', "it's", 'two words', '$HOME',
                       cwd=here, env={**os.environ, 'TBVM_TEST': 'a "b"\nc'})
            self.assertEqual(done.stdout, f'{here}\na "b"\nc|it\'s|two words|$HOME|')

    def test_writes_stay_inside_unless_shared(self):
        with tempfile.TemporaryDirectory(dir='/var/tmp') as top:
            kept, lost = Path(top) / 'kept, really', Path(top) / 'lost'
            kept.mkdir()
            done = bare('--share', str(kept), '--', 'sh', '-c', 'echo data >"$1/file" && echo data >"$2"', 'sh',
                       str(kept), str(lost))
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            self.assertEqual((kept / 'file').read_text(), 'data\n')
            self.assertFalse(lost.exists())

    def test_time_limit(self):
        done = bare('--timeout', '2', '--', 'sh', '-c', 'echo before; sleep 1000')
        self.assertEqual((done.returncode, done.stdout), (124, 'before\n'))
        self.assertIn('did not end in 2 s', done.stderr)

    def test_crash_is_not_the_commands_status(self):
        done = bare('--', 'sh', '-c', 'echo c >/proc/sysrq-trigger')
        self.assertEqual(done.returncode, 125)
        self.assertIn('stopped while the command ran', done.stderr)
        self.assertIn('Kernel panic', done.stderr)

    def test_a_long_trace_does_not_hide_the_panic(self):
        log = ['boot'] * 300 + ['Kernel panic - not syncing'] + ['  ? a call'] * 70
        self.assertEqual(last_words(log, 40), log[300:])
        self.assertEqual(last_words(log[:300], 40), ['boot'] * 40)

    def test_wrong_usage(self):
        self.assertEqual(bare().returncode, 2)
        self.assertEqual(bare('--share', '/nonexistent', '--', 'true').returncode, 2)
        self.assertEqual(bare('shell').returncode, 2)    # no terminal here

    def test_nothing_left_when_killed(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
            with self.subTest(signal=number.name):
                with subprocess.Popen([RUN, '--', 'sleep', '1000'], stdin=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as process:
                    self.assertTrue(wait_until(lambda: machines_of(process.pid)), 'no machine was started')
                    machine = machines_of(process.pid)
                    process.send_signal(number)
                    self.assertEqual(process.wait(30), status)
                self.assertTrue(wait_until(lambda: not any(map(alive, machine)), 30), 'QEMU still runs')


if __name__ == '__main__':
    probe = bare('--fetch')
    if probe.returncode == 77:
        print('SKIP: ' + probe.stderr.strip().splitlines()[-1])
        sys.exit(77)
    unittest.main(verbosity=2)
