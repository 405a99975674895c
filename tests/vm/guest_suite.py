#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs what needs Debian's kernel in one boot: tests of the `netns` suite of a build directory, and test_netem.py.

The tests of the suite are those that meson knows (meson-info/intro-tests.json), with their own environment and
directory; their time limits are stretched by SLOWER, as every instruction is emulated. What they print is passed
on; a test of exit status 77 counts as skipped. Exit status: 0 when none failed and at least one passed.

    tests/vm/guest_suite.py [BUILD-DIRECTORY [TEST...]]        (default: $TBNODE_BUILD_DIR; CASES and vm-netem, or all
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
# What a kernel without netem, RED and nft_meta_bridge can't show, and what differs between kernels. The other cases show the same on
# the host, and take twenty times as long here.
CASES = {
    'netns-shape': ['Objects.test_both_directions', 'Objects.test_netem_or_a_clear_error', 'Objects.test_removal_restores_exactly',
                    'Objects.test_drift_is_repaired_from_outside', 'Objects.test_distributions',
                    'Objects.test_seed_that_the_kernel_ignores_is_an_error'],
    'netns-tc-oracle': ['Oracle.test_netem', 'Oracle.test_netem_options_go_again', 'Oracle.test_distribution_changes_in_place',
                        'Oracle.test_unknown_distribution', 'Oracle.test_red'],
    'netns-rules': ['Rules.test_each_destination_has_its_delay', 'Rules.test_other_queues_are_not_touched'],
    'netns-guard': ['GuardNftables.test_unknown_port_of_a_managed_bridge'],
}
NETEM = {'name': 'vm-netem', 'cmd': [str(RUN.with_name('test_netem.py'))], 'env': {}, 'workdir': None, 'timeout': 50}
MARK = '==tbvm=='


def tests_of(build, names):
    known = json.loads((build / 'meson-info/intro-tests.json').read_text())
    found = [t for t in known if any(s.rpartition(':')[2] == 'netns' for s in t['suite'])]
    return [t for t in found if not names or t['name'] in names] + ([NETEM] if not names or NETEM['name'] in names else [])


def limit(test):
    return max(60, test['timeout'] or 60) * SLOWER


def script(tests, cases, build):
    lines = []
    for number, test in enumerate(tests):
        environment = [f'{k}={v}' for k, v in test['env'].items()]
        command = ['timeout', '-k', '10', str(limit(test)), 'env', *environment, *test['cmd'], *cases.get(test['name'], [])]
        lines += [f'echo "{MARK} start {number}"',
                  f'(cd {shlex.quote(test["workdir"] or str(build))} && exec {shlex.join(command)}) 2>&1 </dev/null',
                  f'status=$?; echo; echo "{MARK} end {number} $status"']
    return '\n'.join(lines)


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get('TBNODE_BUILD_DIR', 'build')).resolve()
    try:
        long = os.environ.get('TBNODE_TEST_LONG') == 'yes'
        cases = {} if long or sys.argv[2:] else CASES
        tests = tests_of(build, sys.argv[2:] or ([*cases, NETEM['name']] if cases else []))
    except (OSError, ValueError) as why:
        print(f'guest_suite: {build} is no configured build directory: {why}', file=sys.stderr)
        return 2
    if not tests:
        print(f'guest_suite: {build} has no such test', file=sys.stderr)
        return 1

    status = {}
    last = ''
    total = sum(limit(t) + 30 for t in tests)
    with subprocess.Popen([RUN, '--timeout', str(total), '--', 'bash', '-c', script(tests, cases, build)],
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
    print(f'under Debian\'s kernel: {passed} passed, {len(failed)} failed, '
          f'{len(tests) - passed - len(failed)} skipped')
    return 1 if failed or not passed or machine.returncode != 0 else 0


if __name__ == '__main__':
    sys.exit(main())
