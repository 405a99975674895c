#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the `netns` suite of a build directory under Debian's kernel, in one boot.

The tests are those that meson knows (meson-info/intro-tests.json), with their own arguments, environment and
directory; their time limits are stretched by SLOWER, as every instruction is emulated. What they print is passed
on; a test of exit status 77 counts as skipped. Exit status: 0 when none failed and at least one passed.

    tests/vm/netns_suite.py [BUILD-DIRECTORY [TEST...]]        (default: $TBNODE_BUILD_DIR; NEED_NETEM, or all
                                                                tests with TBNODE_TEST_LONG=yes)
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parent / 'run'
SLOWER = 20
# What the kernel of a machine without netem can't show. The others pass there already; emulated they take long.
NEED_NETEM = ['netns-shape', 'netns-tc-oracle']
MARK = '==tbvm=='


def tests_of(build, names):
    known = json.loads((build / 'meson-info/intro-tests.json').read_text())
    found = [t for t in known if any(s.rpartition(':')[2] == 'netns' for s in t['suite'])]
    return [t for t in found if not names or t['name'] in names]


def limit(test):
    return max(60, test['timeout'] or 60) * SLOWER


def script(tests, build):
    lines = []
    for number, test in enumerate(tests):
        environment = [f'{k}={v}' for k, v in test['env'].items()]
        command = ['timeout', '-k', '10', str(limit(test)), 'env', *environment, *test['cmd']]
        lines += [f'echo "{MARK} start {number}"',
                  f'(cd {shlex.quote(test["workdir"] or str(build))} && exec {shlex.join(command)}) 2>&1 </dev/null',
                  f'status=$?; echo; echo "{MARK} end {number} $status"']
    return '\n'.join(lines)


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get('TBNODE_BUILD_DIR', 'build')).resolve()
    try:
        long = os.environ.get('TBNODE_TEST_LONG') == 'yes'
        tests = tests_of(build, sys.argv[2:] or ([] if long else NEED_NETEM))
    except (OSError, ValueError) as why:
        print(f'netns_suite: {build} is no configured build directory: {why}', file=sys.stderr)
        return 2
    if not tests:
        print(f'netns_suite: {build} has no such test of suite netns', file=sys.stderr)
        return 1

    status = {}
    last = ''
    total = sum(limit(t) + 30 for t in tests)
    with subprocess.Popen([RUN, '--timeout', str(total), '--', 'bash', '-c', script(tests, build)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors='replace') as machine:
        for line in machine.stdout:
            mark = re.fullmatch(rf'{MARK} (start|end) (\d+)(?: (\d+))?\n', line)
            if not mark:
                last = line.strip() or last
                print(line, end='', flush=True)
                continue
            name = tests[int(mark[2])]['name']
            if mark[1] == 'start':
                last = ''
                print(f'== {name}', flush=True)
            else:
                status[name] = int(mark[3])
                if status[name] == 77:
                    print(f'SKIP: {name}: {last}')
    if machine.returncode == 77:
        print('SKIP: no test machine on this host')
        return 77

    failed = [t['name'] for t in tests if status.get(t['name']) not in (0, 77)]
    passed = sum(1 for s in status.values() if s == 0)
    for name in failed:
        how = f'exit status {status[name]}' if name in status else 'never ended'
        print(f'FAILED under Debian\'s kernel: {name}: {how}')
    print(f'netns under Debian\'s kernel: {passed} passed, {len(failed)} failed, '
          f'{len(tests) - passed - len(failed)} skipped')
    return 1 if failed or not passed or machine.returncode != 0 else 0


if __name__ == '__main__':
    sys.exit(main())
