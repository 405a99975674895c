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
           "-fmerge-all-constants -fno-schedule-insns2 -fno-shrink-wrap -fira-algorithm=priority")
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
{musl}/lib/crt1.o {musl}/lib/crti.o {math}

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


# For programs that neither print nor read numbers with a point: the linker takes these for musl's own, and leaves the
# conversions out (10 kB of a program, on arm64 25 kB). A printf() with %f fails there.
INTEGERS = ("vfprintf-integers", "floatscan-none")
FMT_FP_CALL = "l = fmt_fp(f, arg.f, w, p, fl, t);"
FLOATSCAN_NONE = """struct _IO_FILE;
long double __floatscan(struct _IO_FILE *f, int precision, int pushback);
long double __floatscan(struct _IO_FILE *f, int precision, int pushback)
{
        return 0;
}
"""
# On amd64, for awk: x86's long double unit computes these in its own registers. musl's versions for double are faster and bring
# 10 kB of tables, which don't compress. Linked before libc like crt1.o; who doesn't need it doesn't get it (--gc-sections).
MATH_X87 = """double exp(double x);
double log(double x);
double pow(double x, double y);
long double expl(long double x);
long double logl(long double x);
long double powl(long double x, long double y);
double exp(double x)
{
        return (double) expl(x);
}
double log(double x)
{
        return (double) logl(x);
}
double pow(double x, double y)
{
        return (double) powl(x, y);
}
"""


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
        self.integers = []
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
        self.integers = [f"{directory}/lib/{name}.o" for name in INTEGERS]
        with open(self.specs, "w", encoding="utf-8") as f:
            f.write(SPECS.format(musl=directory, math=f"{directory}/lib/math-x87.o" if self.machine == "x86_64" else ""))

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
    build_replacements(tools, tree, output, env, log)


def build_replacements(tools, tree, output, env, log):
    """See INTEGERS and MATH_X87."""
    source = f"{tree}/src/stdio/vfprintf.c"
    with open(source, encoding="utf-8") as f:
        text = f.read()
    if text.count(FMT_FP_CALL) != 1:
        raise Failed("musl's vfprintf.c isn't what it was; see FMT_FP_CALL in kit/toolchain.py")
    with open(source, "w", encoding="utf-8") as f:
        f.write(text.replace(FMT_FP_CALL, "l = -1;"))
    run(["make", "obj/src/stdio/vfprintf.o"], cwd=tree, env=env, log=log)
    shutil.copy(f"{tree}/obj/src/stdio/vfprintf.o", f"{output}/lib/{INTEGERS[0]}.o")
    for name, text in ((INTEGERS[1], FLOATSCAN_NONE), ("math-x87", MATH_X87)):
        with open(f"{tree}/{name}.c", "w", encoding="utf-8") as f:
            f.write(text)
        run([tools.gcc, *C_FLAGS.split(), "-fno-builtin", "-c", f"{name}.c", "-o", f"{output}/lib/{name}.o"], cwd=tree, env=env,
            log=log)
