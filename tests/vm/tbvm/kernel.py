# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel and busybox of the test machine, fetched from Debian and kept in a cache directory.

Nothing is installed: the package is downloaded and unpacked. Only what a network test can need is unpacked
(no graphics, sound, USB, hardware drivers): 80 MB instead of 400.

Layout of the cache directory:
    kernels/<package>_<version>/    vmlinux, release, lib/modules/<release>/; complete when it exists (renamed
                                    into place); `lock` is held shared by every machine that runs from it
    current.json                    which of them to use, and when the package index was last asked
    busybox                         only where the host has no static busybox
    log/                            boot logs, the newest twenty
    apt/                            package index of our own, only where the host has none
"""

import contextlib
import fcntl
import json
import lzma
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

META_PACKAGE = 'linux-image-amd64'
RECHECK_SECONDS = 24 * 3600

# Subtrees of lib/modules/<release>/kernel/ that no test of a network agent can want.
UNWANTED = [
    'sound', 'drivers/gpu', 'drivers/media', 'drivers/net/ethernet', 'drivers/net/wireless', 'drivers/infiniband',
    'drivers/scsi', 'drivers/iio', 'drivers/usb', 'drivers/staging', 'drivers/hwmon', 'drivers/input', 'drivers/ata',
    'drivers/hid', 'drivers/platform', 'drivers/mtd', 'drivers/isdn', 'drivers/leds', 'drivers/video', 'drivers/hv',
    'drivers/thunderbolt', 'drivers/target', 'drivers/md', 'drivers/mfd', 'drivers/edac', 'drivers/watchdog',
    'drivers/i2c', 'drivers/nvme', 'drivers/mmc', 'drivers/bluetooth', 'drivers/power', 'drivers/regulator',
    'drivers/net/can', 'drivers/net/wwan', 'drivers/net/usb', 'drivers/net/phy', 'drivers/accel', 'drivers/rtc',
    'drivers/xen', 'drivers/nfc', 'drivers/comedi', 'drivers/firmware', 'drivers/soundwire', 'drivers/crypto',
    'net/mac80211', 'net/wireless', 'net/bluetooth', 'net/nfc', 'net/can', 'net/sunrpc', 'net/ceph', 'net/rds',
    'fs/xfs', 'fs/btrfs', 'fs/ocfs2', 'fs/nfs', 'fs/nfsd', 'fs/cifs', 'fs/ceph', 'fs/gfs2', 'fs/jfs', 'fs/f2fs',
    'fs/ubifs', 'fs/afs', 'fs/smb', 'fs/orangefs', 'fs/reiserfs', 'fs/nilfs2', 'fs/udf', 'arch/x86/kvm',
]


class Unavailable(Exception):
    """The machine the tests run on can't give what is needed: a reason to skip, not a failure."""


class Kernel:
    def __init__(self, directory, lock):
        self.directory = directory
        self.release = (directory / 'release').read_text().strip()
        self.vmlinux = directory / 'vmlinux'
        self.modules = directory / 'lib/modules' / self.release
        self.lock = lock


def cache_dir():
    given = os.environ.get('TBNODE_VM_CACHE')
    if given:
        path = Path(given)
    elif os.geteuid() == 0:
        path = Path('/var/cache/tbnode-tests/vm')
    else:
        path = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'tbnode-tests/vm'
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        said = done.stderr.decode(errors='replace').strip().splitlines() or ['no message']
        raise Unavailable(f'{command[0]} failed: {said[-1]}')
    return done.stdout.decode(errors='replace')


class Apt:
    """apt with the host's package index, or with one of our own where the host has none."""

    def __init__(self, cache):
        self.cache = cache
        self.options = ['-o', 'APT::Sandbox::User=root']
        for tool in ('apt-get', 'apt-cache', 'dpkg-deb'):
            if not shutil.which(tool):
                raise Unavailable(f'{tool} not found: the kernel comes from Debian\'s package {META_PACKAGE}')

    def candidate(self, package):
        """Version and Depends of the package's candidate; None when no index knows it."""
        try:
            text = _run(['apt-cache', *self.options, 'show', '--no-all-versions', package])
        except Unavailable:
            return None
        fields = {}
        for line in text.splitlines():
            if not line:
                break
            if not line.startswith(' ') and ':' in line:
                key, _, value = line.partition(':')
                fields.setdefault(key, value.strip())
        return fields if 'Version' in fields else None

    def update_own_index(self):
        own = self.cache / 'apt'
        for sub in ('lists/partial', 'archives/partial'):
            (own / sub).mkdir(parents=True, exist_ok=True)
        self.options += ['-o', f'Dir::State::lists={own}/lists', '-o', f'Dir::Cache={own}']
        _run(['apt-get', *self.options, '-qq', 'update'])

    def lookup(self, package):
        found = self.candidate(package)
        if not found and not any(o.startswith('Dir::') for o in self.options):
            self.update_own_index()
            found = self.candidate(package)
        if not found:
            raise Unavailable(f'no package source offers {package}')
        return found

    def download(self, package, version, into):
        command = ['apt-get', *self.options, '-qq', 'download', f'{package}={version}']
        try:
            _run(command, cwd=into)
        except Unavailable:
            # The host's index may be older than the archive: a version that was replaced is gone there.
            self.update_own_index()
            version = self.lookup(package)['Version']
            _run([*command[:1], *self.options, '-qq', 'download', f'{package}={version}'], cwd=into)
        debs = list(Path(into).glob('*.deb'))
        if len(debs) != 1:
            raise Unavailable(f'downloading {package} gave {len(debs)} files instead of one')
        return debs[0]


def extract_vmlinux(bzimage):
    """The ELF kernel inside a bzImage. QEMU starts it directly (PVH), which saves the guest from unpacking it:
    seconds when every instruction is emulated."""
    data = Path(bzimage).read_bytes()
    start = data.find(b'\xfd7zXZ\x00')
    while start >= 0:
        try:
            image = lzma.LZMADecompressor().decompress(data[start:])
        except lzma.LZMAError:
            image = b''
        if image.startswith(b'\x7fELF'):
            return image
        start = data.find(b'\xfd7zXZ\x00', start + 1)
    raise Unavailable(f'{bzimage}: no xz-compressed ELF kernel inside')


def _unpack(deb, into):
    excludes = [f'--exclude=./lib/modules/*/kernel/{u}' for u in UNWANTED] + ['--exclude=./usr']
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as source:
        tar = subprocess.run(['tar', '-x', '--no-same-owner', '-C', into, '--wildcards', *excludes],
                             stdin=source.stdout, check=False)
        source.stdout.close()
    if tar.returncode != 0 or source.returncode != 0:
        raise Unavailable(f'{deb}: unpacking failed')

    images = list(Path(into).glob('boot/vmlinuz-*'))
    if len(images) != 1:
        raise Unavailable(f'{deb}: {len(images)} kernel images instead of one')
    release = images[0].name[len('vmlinuz-'):]
    (Path(into) / 'vmlinux').write_bytes(extract_vmlinux(images[0]))
    (Path(into) / 'release').write_text(release + '\n')
    (Path(into) / 'lock').touch()
    images[0].unlink()
    if not shutil.which('depmod'):
        raise Unavailable('depmod not found (package kmod)')
    _run(['depmod', '-b', into, release])
    Path(into).chmod(0o755)


def _fetch(cache, say):
    """Name of the directory under kernels/ that holds the current kernel; fetched when it isn't there yet."""
    kernels = cache / 'kernels'
    kernels.mkdir(exist_ok=True)

    given = os.environ.get('TBNODE_VM_KERNEL_DEB')
    if given:
        deb = Path(given).resolve()
        fields = _run(['dpkg-deb', '-f', str(deb), 'Package', 'Version'])
        name = '_'.join(line.split(':', 1)[1].strip().replace(':', '%3a') for line in fields.splitlines())
        package = version = None
    else:
        apt = Apt(cache)
        depends = apt.lookup(META_PACKAGE).get('Depends', '')
        package = next((d.split()[0] for d in depends.split(',') if d.strip().startswith('linux-image-')), None)
        if not package:
            raise Unavailable(f'{META_PACKAGE} names no kernel package')
        version = apt.lookup(package)['Version']
        name = f'{package}_{version}'.replace(':', '%3a')

    if not (kernels / name / 'release').exists():
        with tempfile.TemporaryDirectory(dir=kernels, prefix='.new-') as work:
            if package:
                say(f'fetching {package} {version}')
                deb = apt.download(package, version, work)
            tree = Path(work) / 'tree'
            tree.mkdir()
            _unpack(deb, tree)
            tree.rename(kernels / name)

    for old in kernels.iterdir():
        if old.name == name or old.name.startswith('.'):
            continue
        with contextlib.suppress(OSError), open(old / 'lock') as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)
    return name


def get_kernel(say, update=False):
    """The kernel to boot, fetched when needed. The package index is asked once a day; when that fails but a
    kernel is there from before, that one is used."""
    cache = cache_dir()
    with open(cache / 'prepare.lock', 'w') as prepare:
        fcntl.flock(prepare, fcntl.LOCK_EX)
        current = {}
        with contextlib.suppress(OSError, ValueError):
            current = json.loads((cache / 'current.json').read_text())
        name, checked = current.get('name'), current.get('checked', 0)
        usable = bool(name) and (cache / 'kernels' / name / 'release').exists()
        fresh = 0 <= time.time() - checked < RECHECK_SECONDS
        if update or not usable or not fresh or 'TBNODE_VM_KERNEL_DEB' in os.environ:
            try:
                name = _fetch(cache, say)
            except Unavailable as why:
                if not usable:
                    raise
                say(f'using the kernel fetched before ({name}): {why}')
            new = cache / 'current.json.new'
            new.write_text(json.dumps({'name': name, 'checked': int(time.time())}) + '\n')
            new.rename(cache / 'current.json')
        directory = cache / 'kernels' / name
        lock = open(directory / 'lock')
        fcntl.flock(lock, fcntl.LOCK_SH)
        return Kernel(directory, lock)


def _is_static(path):
    """Whether an ELF64 file has no PT_INTERP, so that it runs without any library beside it."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return False
    if data[:5] != b'\x7fELF\x02':
        return False
    offset = int.from_bytes(data[32:40], 'little')
    size = int.from_bytes(data[54:56], 'little')
    count = int.from_bytes(data[56:58], 'little')
    types = [int.from_bytes(data[offset + i * size:offset + i * size + 4], 'little') for i in range(count)]
    return bool(types) and 3 not in types


def get_busybox(say):
    """Path of a static busybox: the host's, else one unpacked from package busybox-static."""
    cache = cache_dir()
    for path in ('/bin/busybox', '/usr/bin/busybox', cache / 'busybox'):
        if _is_static(path):
            return Path(path)
    with open(cache / 'prepare.lock', 'w') as prepare:
        fcntl.flock(prepare, fcntl.LOCK_EX)
        apt = Apt(cache)
        version = apt.lookup('busybox-static')['Version']
        with tempfile.TemporaryDirectory(dir=cache, prefix='.new-') as work:
            say(f'fetching busybox-static {version}')
            deb = apt.download('busybox-static', version, work)
            _run(['dpkg-deb', '-x', str(deb), f'{work}/tree'])
            for path in ('bin/busybox', 'usr/bin/busybox'):
                if _is_static(f'{work}/tree/{path}'):
                    Path(f'{work}/tree/{path}').rename(cache / 'busybox')
                    return cache / 'busybox'
    raise Unavailable('package busybox-static holds no static busybox')
