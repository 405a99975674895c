# SPDX-License-Identifier: LGPL-2.1-or-later
"""One run of the test machine: starts QEMU, carries the command's streams, finds out how it ended.

QEMU's ends of the channels are socket pairs and the initial file system (which holds the environment) is a memfd, so
nothing has a name that could be left behind; the boot log alone stays. QEMU gets the parent-death signal: whatever
ends this process, SIGKILL included, ends the machine.
"""

import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import termios
import time
from pathlib import Path

from . import initramfs

BOOT_SECONDS = 120      # from power-on to the command; about 4 on an idle host
SILENCE_SECONDS = 90    # without a beat (one every 5 s) the guest is taken for hung
POWER_OFF_SECONDS = 10
OWN_CLOCK_PATIENCE = 10  # what is a second by its own clock may take that many (and more beside other work)

EXIT_TIMEOUT = 124      # as timeout(1)
EXIT_MACHINE = 125      # the machine failed, not the command

# Loaded before the command runs, so that it finds a machine on which these have been used before. The rest of the
# package is loaded on demand by the kernel, as on any Debian host.
PRELOAD = [
    'sch_netem', 'sch_htb', 'sch_tbf', 'sch_ingress', 'cls_u32', 'cls_matchall', 'act_mirred', 'ifb', 'veth', 'bridge',
    'br_netfilter', 'ip_tables', 'iptable_filter', 'iptable_nat', 'xt_physdev', 'xt_conntrack', 'xt_mac', 'xt_comment',
    'xt_MASQUERADE', 'xt_tcpudp', 'xt_addrtype', 'nf_tables',
]

# Of the environment, what names places or sessions of the host that the guest hasn't got.
NOT_PASSED = {'TMPDIR', 'XDG_RUNTIME_DIR', 'DBUS_SESSION_BUS_ADDRESS', 'SSH_AUTH_SOCK', 'NOTIFY_SOCKET', 'PWD',
              'OLDPWD', 'SHLVL', '_'}


def last_words(log, lines):
    """The log's last lines; from the kernel's own words about its end on where the trace is longer (at most 200)."""
    first = max(len(log) - lines, 0)
    for number in range(max(len(log) - 200, 0), first):
        if re.search(r'Kernel panic|BUG:|Oops:', log[number]):
            return log[number:]
    return log[first:]


class MachineError(Exception):
    """The machine didn't boot, hung, or ended without a word about the command."""


class TimeLimit(Exception):
    pass


def _script(command, cwd, environment):
    lines = [f'cd -- {shlex.quote(cwd)} || exit {EXIT_MACHINE}']
    for key, value in environment.items():
        if key not in NOT_PASSED and re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', key):
            lines.append(f'export {key}={shlex.quote(value)}')
    lines.append('export TBNODE_VM=1')
    lines.append('exec ' + ' '.join(shlex.quote(c) for c in command))
    return os.fsencode('\n'.join(lines) + '\n')


class Machine:
    def __init__(self, kernel, busybox, command, *, log, terminal=False, shares=(), memory=1024, cores=2,
                 timeout=600, preload=PRELOAD, forward_stdin=False, verbose=False, own_clock=False):
        self.kernel = kernel
        self.busybox = busybox
        self.command = list(command)
        self.log = Path(log)
        self.terminal = terminal
        self.shares = [os.path.abspath(s) for s in shares]
        self.memory = memory
        self.cores = 1 if own_clock else cores
        self.own_clock = own_clock
        self.timeout = timeout
        self.preload = preload
        self.forward_stdin = forward_stdin and not terminal
        self.verbose = verbose
        self.qemu = None
        self.status = None
        self.error = None
        self.ready_at = None
        self.heard_at = None
        self.control_rest = b''

    # -- what QEMU is given -------------------------------------------------------------------------------------

    def _job(self):
        settings = {
            'host_time': f'{time.time():.0f}',
            'modules': str(self.kernel.modules),
            'preload': ' '.join(self.preload),
            'shares': ' '.join(f's{i}' for i in range(len(self.shares))),
            'terminal': '1' if self.terminal else '',
            'stdin': '1' if self.forward_stdin else '',
            'own_clock': '1' if self.own_clock else '',
        }
        for i, share in enumerate(self.shares):
            settings[f'share_s{i}'] = share
        if self.terminal:
            size = shutil.get_terminal_size()
            settings['rows'], settings['columns'] = str(size.lines), str(size.columns)
        text = ''.join(f'{k}={shlex.quote(v)}\n' for k, v in settings.items())
        return {'settings': os.fsencode(text), 'command': _script(self.command, os.getcwd(), os.environ)}

    def _arguments(self, archive, channels):
        """QEMU's command line. The `pc` machine and not `microvm`, which boots half a second faster but has no timer
        beside the PIT to calibrate the TSC against: one boot in eight hung there on a busy host."""
        append = ['console=ttyS0', 'panic=-1', 'reboot=t', 'tsc=reliable', 'mitigations=off', 'audit=0', 'apparmor=0',
                  'nokaslr', 'rcupdate.rcu_expedited=1', 'cryptomgr.notests', 'ifb.numifbs=0']
        if not self.verbose:
            append.append('quiet')
        # sleep=off: a moment in which nothing runs is skipped, not waited for.
        clock = ['-icount', 'shift=0,sleep=off'] if self.own_clock else []
        arguments = [
            'qemu-system-x86_64', '-accel', 'tcg', *clock, '-cpu', 'max', '-machine', 'pc,usb=off,vmport=off',
            '-smp', str(self.cores), '-m', str(self.memory), '-nodefaults', '-no-user-config', '-display', 'none',
            '-no-reboot', '-name', 'tbvm', '-kernel', str(self.kernel.vmlinux), '-initrd', archive,
            '-append', ' '.join(append),
            '-chardev', f'file,id=log,path={str(self.log).replace(",", ",,")}', '-serial', 'chardev:log',
            '-device', 'virtio-serial-pci',
        ]
        shares = [('root', '/', 'on')] + [(f's{i}', s, 'off') for i, s in enumerate(self.shares)]
        for tag, path, readonly in shares:
            path = path.replace(',', ',,')
            arguments += ['-fsdev', f'local,id={tag},path={path},security_model=none,readonly={readonly},'
                          'multidevs=remap', '-device', f'virtio-9p-pci,fsdev={tag},mount_tag={tag}']
        for name, end in channels.items():
            arguments += ['-chardev', f'socket,id={name},fd={end.fileno()}',
                          '-device', f'virtserialport,chardev={name},name={name}']
        if self.terminal:
            arguments += ['-chardev', 'stdio,id=terminal,mux=on,signal=off', '-device', 'virtconsole,chardev=terminal']
        return arguments

    # -- running it ---------------------------------------------------------------------------------------------

    def run(self):
        """Exit status of the command. Raises MachineError, TimeLimit."""
        ours, theirs = {}, {}
        names = ['control'] + ([] if self.terminal else ['stdout', 'stderr'])
        if self.forward_stdin:
            names.append('stdin')
        for name in names:
            ours[name], theirs[name] = socket.socketpair()
        saved = None
        if self.terminal:
            saved = termios.tcgetattr(0)
        try:
            archive = os.memfd_create('initramfs')
            with open(archive, 'r+b', closefd=True) as file:
                file.write(initramfs.build(self.kernel, self.busybox, Path(__file__).parent.parent / 'guest',
                                           self._job()))
                file.flush()
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self.qemu = subprocess.Popen(
                    ['setpriv', '--pdeathsig', 'KILL', *self._arguments(f'/proc/self/fd/{archive}', theirs)],
                    stdin=None if self.terminal else subprocess.DEVNULL,
                    stdout=None if self.terminal else subprocess.DEVNULL,
                    stderr=subprocess.PIPE, pass_fds=[archive, *(s.fileno() for s in theirs.values())])
            for end in theirs.values():
                end.close()
            try:
                self._converse(ours)
            finally:
                self._end()
        finally:
            for end in (*ours.values(), *theirs.values()):
                end.close()
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)
        if self.status is None:
            self._explain()
        return self.status

    def kill(self):
        if self.qemu and self.qemu.poll() is None:
            self.qemu.kill()

    def _end(self):
        """The machine switches itself off once it has reported; anything else is made to."""
        if self.qemu.poll() is None and self.status is not None:
            try:
                self.qemu.wait(POWER_OFF_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        self.kill()
        self.qemu.wait()

    def _explain(self):
        if self.error:
            raise MachineError(self.error)
        said = self.qemu.stderr.read().decode(errors='replace').strip()
        if self.qemu.returncode not in (0, -signal.SIGKILL):
            raise MachineError(f'qemu ended with status {self.qemu.returncode}: {said or "no message"}')
        when = 'before the command was started' if self.ready_at is None else 'while the command ran'
        raise MachineError(f'the machine stopped {when}{": " + said if said else ""}')

    def _converse(self, ours):
        """Carry the streams until the machine is gone or has reported; keep the time limits."""
        sinks = {'stdout': 1, 'stderr': 2}
        started = self.heard_at = time.monotonic()
        selector = selectors.DefaultSelector()
        for name in ('control', 'stdout', 'stderr'):
            if name in ours:
                selector.register(ours[name], selectors.EVENT_READ, name)
        input_left = b''
        if self.forward_stdin:
            ours['stdin'].setblocking(False)
            if self._pollable(0):
                selector.register(0, selectors.EVENT_READ, 'input')
            else:
                selector.register(ours['stdin'], selectors.EVENT_WRITE, 'file')

        while any(k.data in ('control', 'stdout', 'stderr') for k in selector.get_map().values()):
            now = time.monotonic()
            if self.status is None:
                self._check_time(now, started)
            for key, _ in selector.select(1.0):
                if key.data == 'control':
                    data = ours['control'].recv(4096)
                    if not data:
                        selector.unregister(key.fileobj)
                    self._hear(data)
                elif key.data in sinks:
                    data = ours[key.data].recv(65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    while data:
                        data = data[os.write(sinks[key.data], data):]
                else:
                    input_left = self._feed(selector, ours['stdin'], key, input_left)

    @staticmethod
    def _pollable(fd):
        """epoll refuses regular files, which never block anyway."""
        try:
            with selectors.EpollSelector() as probe:
                probe.register(fd, selectors.EVENT_READ)
            return True
        except OSError:
            return False

    def _feed(self, selector, port, key, left):
        """One step of standard input -> guest, never blocking: read when nothing is pending, else write."""
        if not left:
            left = os.read(0, 65536)
            if not left:
                selector.unregister(key.fileobj)
                # The guest's reader sees end of file when the port has lost its host side.
                port.shutdown(socket.SHUT_WR)
                return b''
        try:
            left = left[port.send(left):]
        except BlockingIOError:
            pass
        except OSError:
            selector.unregister(key.fileobj)
            return b''
        if key.data == 'input' and left:
            selector.unregister(0)
            selector.register(port, selectors.EVENT_WRITE, 'rest')
        elif key.data == 'rest' and not left:
            selector.unregister(port)
            selector.register(0, selectors.EVENT_READ, 'input')
        return left

    def _hear(self, data):
        self.heard_at = time.monotonic()
        *lines, self.control_rest = (self.control_rest + data).split(b'\n')
        for line in lines:
            word, _, rest = line.decode(errors='replace').partition(' ')
            if word == 'ready':
                self.ready_at = self.heard_at
            elif word == 'exit' and rest.isdigit():
                self.status = int(rest)
            elif word == 'error':
                self.error = rest

    def _check_time(self, now, started):
        patience = OWN_CLOCK_PATIENCE if self.own_clock else 1
        if self.ready_at is None:
            if now - started > BOOT_SECONDS * patience:
                raise MachineError(f'the machine did not boot in {BOOT_SECONDS * patience} s')
        elif self.timeout and now - self.ready_at > self.timeout:
            raise TimeLimit(f'the command did not end in {self.timeout:g} s')
        elif now - self.heard_at > SILENCE_SECONDS * patience:
            raise MachineError(f'the machine hangs: no sign of life for {SILENCE_SECONDS * patience} s')
