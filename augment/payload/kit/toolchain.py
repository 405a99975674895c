# SPDX-License-Identifier: LGPL-2.1-or-later
"""One compiler for all programs of a payload: Debian's gcc, native or crossing, with a musl built from Debian's source.

musl is compiled here and not taken from musl-dev: so there is one way for both architectures, and it is compiled for
size, without position independence (all our programs are static and lie at fixed addresses) and in sections that the
linker can leave out.
"""

import os
import shutil
import subprocess

from kit.common import Failed, environment, jobs, run
from kit.sources import unpack

# OCI architecture -> (machine as uname has it, prefix of the tools, headers' package when crossing)
ARCHES = {
    "amd64": ("x86_64", "x86_64-linux-gnu"),
    "arm64": ("aarch64", "aarch64-linux-gnu"),
}
# The second line: as many bytes, but more regular ones, which compress better (by 2 %). Instructions stay in the order of
# the source instead of being mixed, and registers are given out in the order of need.
C_FLAGS = ("-Os -fno-pie -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fdata-sections "
           "-fmerge-all-constants -fno-schedule-insns2 -fira-algorithm=priority")
# No relro: there is nothing to relocate, and it would be paid for with a page (64 kB on arm64) of padding per program.
LD_FLAGS = "-static -no-pie -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noexecstack -Wl,-z,noseparate-code"

# As tools/musl-gcc.specs.sh of musl, but static only and without crtbegin.o: no C++, no unwinding.
SPECS = """%rename cpp_options old_cpp_options

*cpp_options:
-nostdinc -isystem {musl}/include -isystem include%s %(old_cpp_options)

*cc1:
%(cc1_cpu) -nostdinc -isystem {musl}/include -isystem include%s

*link_libgcc:
-L{musl}/lib -L .%s

*libgcc:
libgcc.a%s

*startfile:
{musl}/lib/crt1.o {musl}/lib/crti.o

*endfile:
{musl}/lib/crtn.o

*link:
-nostdlib -static

*esp_link:


*esp_options:


*esp_cpp_options:


"""


def native_arch():
    machine = os.uname().machine
    for arch, (name, _) in ARCHES.items():
        if name == machine:
            return arch
    return None


def installed_version(package):
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode().strip() if done.returncode == 0 else ""


class Toolchain:
    def __init__(self, arch, work):
        self.arch = arch
        self.machine, triplet = ARCHES[arch]
        native = native_arch() == arch
        self.prefix = "" if native else f"{triplet}-"
        self.host = f"{self.machine}-linux-musl"
        self.gcc = f"{self.prefix}gcc"
        if not shutil.which(self.gcc):
            raise Failed(f"{self.gcc} not found; apt-get install gcc{'' if native else '-' + triplet}")
        self.headers = self.link_headers(work, triplet, native)
        package = "linux-libc-dev" if native else f"linux-libc-dev-{arch}-cross"
        self.kernel = installed_version(package)
        self.version = run([self.gcc, "-dumpfullversion"]).strip()
        self.specs = f"{work}/musl.specs"
        self.cc = f"{self.gcc} -specs={self.specs}"

    @staticmethod
    def link_headers(work, triplet, native):
        """The kernel's headers and nothing else of what lies beside them."""
        base = "/usr/include" if native else f"/usr/{triplet}/include"
        directory = f"{work}/kernel-headers"
        os.makedirs(directory)
        for name in ("linux", "asm-generic", "mtd", "asm"):
            target = f"/usr/include/{triplet}/asm" if native and name == "asm" else f"{base}/{name}"
            if not os.path.isdir(target):
                raise Failed(f"{target} is missing; apt-get install {'linux-libc-dev' if native else 'gcc-' + triplet}")
            os.symlink(target, f"{directory}/{name}")
        return directory

    def identity(self):
        """Everything that two builds of the same source can differ by."""
        return f"{self.arch} {self.prefix} linux {self.kernel} gcc {self.version} {C_FLAGS} {LD_FLAGS} {SPECS}"

    def use_musl(self, directory):
        with open(self.specs, "w", encoding="utf-8") as f:
            f.write(SPECS.format(musl=directory))

    def flag_list(self, tree):
        return [*C_FLAGS.split(), "-idirafter", self.headers, f"-ffile-prefix-map={tree}=.",
                f"-ffile-prefix-map={self.headers}=."]

    def flags(self, tree):
        """For make and configure, which split at spaces: only for trees below our own temporary directory."""
        return " ".join(self.flag_list(tree))

    def environment(self, tree, **more):
        return environment(CC=self.cc, AR=f"{self.prefix}ar", RANLIB=f"{self.prefix}ranlib", STRIP=f"{self.prefix}strip",
                           CFLAGS=self.flags(tree), LDFLAGS=LD_FLAGS, **more)

    def strip(self, source, target):
        run([f"{self.prefix}strip", "-s", "-R", ".comment", "-R", ".note.*", "-o", target, source])


def build_musl(tools, sources, work, output):
    tree = unpack(sources, "musl", work)
    log = f"{work}/musl.log"
    env = dict(tools.environment(tree), CC=tools.gcc, CFLAGS=f"{C_FLAGS} -ffile-prefix-map={tree}=.", LDFLAGS="")
    run(["sh", "./configure", f"--target={tools.host}", f"--prefix={output}", "--disable-shared", "--disable-wrapper"],
        cwd=tree, env=env, log=log)
    run(["make", jobs()], cwd=tree, env=env, log=log)
    run(["make", "install-headers", "install-libs"], cwd=tree, env=env, log=log)
    shutil.copy(f"{tree}/COPYRIGHT", f"{output}/musl.license")
