# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the initial file system of the test machine (cpio "newc", Documentation/driver-api/early-userspace/
buffer-format.rst in the kernel source), with the modules it takes to reach the host's files and nothing else."""

import lzma
import subprocess
from pathlib import Path

# What the first stage loads, with all their dependencies. Everything later comes from the host's files.
BOOT_MODULES = ['virtio_pci', 'virtio_console', '9pnet_virtio', '9p', 'overlay']


class Archive:
    def __init__(self):
        self.parts = []
        self.inode = 0

    def add(self, name, mode, data=b''):
        self.inode += 1
        name = name.encode() + b'\0'
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        header = b'070701' + b''.join(b'%08X' % f for f in fields) + name
        self.parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]

    def directory(self, name):
        self.add(name, 0o040755)

    def file(self, name, data, mode=0o755):
        self.add(name, 0o100000 | mode, data)

    def link(self, name, target):
        self.add(name, 0o120777, target.encode())

    def bytes(self):
        self.add('TRAILER!!!', 0)
        return b''.join(self.parts)


def module_data(path):
    data = Path(path).read_bytes()
    if path.endswith('.xz'):
        return lzma.decompress(data)
    if path.endswith('.zst'):
        return subprocess.run(['zstd', '-dcq', path], check=True, stdout=subprocess.PIPE).stdout
    return data


def module_name(path):
    return path.rsplit('/', 1)[-1].split('.ko')[0].replace('-', '_')


def load_order(kernel, wanted):
    """Paths (under the kernel's module directory) of the wanted modules, dependencies first, from modules.dep;
    what is built into the kernel is left out."""
    depends = {}
    for line in (kernel.modules / 'modules.dep').read_text().splitlines():
        path, _, needs = line.partition(':')
        depends[module_name(path)] = (path, [module_name(n) for n in needs.split()])
    builtin = {module_name(p) for p in (kernel.modules / 'modules.builtin').read_text().split()}

    order = []

    def visit(name):
        if name not in depends:
            if name in builtin:
                return
            raise ValueError(f'kernel {kernel.release} has no module {name}')
        path, needs = depends[name]
        if path in order:
            return
        for need in needs:
            visit(need)
        order.append(path)

    for name in wanted:
        visit(name.replace('-', '_'))
    return order


def build(kernel, busybox, guest_dir, job):
    """The archive: busybox, boot modules, the guest's two scripts, and the files of this job ({name: bytes})."""
    archive = Archive()
    for name in ('bin', 'dev', 'proc', 'sys', 'modules', 'job', 'guest'):
        archive.directory(name)
    archive.file('bin/busybox', Path(busybox).read_bytes())
    archive.link('bin/sh', 'busybox')
    archive.file('init', (guest_dir / 'init').read_bytes())
    archive.file('guest/stage2', (guest_dir / 'stage2').read_bytes())

    order = []
    for path in load_order(kernel, BOOT_MODULES):
        name = module_name(path)
        archive.file(f'modules/{name}.ko', module_data(str(kernel.modules / path)), 0o644)
        order.append(name)
    archive.file('modules/order', ('\n'.join(order) + '\n').encode(), 0o644)

    for name, data in job.items():
        archive.file(f'job/{name}', data, 0o644)
    return archive.bytes()
