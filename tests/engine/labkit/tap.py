# SPDX-License-Identifier: LGPL-2.1-or-later
"""unittest results as TAP (testanything.org, version 12): scripts/test counts the single cases from it."""

import sys
import time
import traceback
import unittest


class TapResult(unittest.TestResult):
    def __init__(self, stream=None):
        super().__init__()
        self.stream = stream or sys.stdout
        self.count = 0
        self.bad = 0
        self.failures_text = []
        self.last = time.monotonic()

    def _line(self, ok, test, suffix="", details=""):
        self.count += 1
        self.bad += 0 if ok else 1
        name = (test if isinstance(test, str) else test.id()).replace("__main__.", "").replace("#", "")
        print(f"{'ok' if ok else 'not ok'} {self.count} - {name}{suffix}", file=self.stream)
        for line in details.rstrip().splitlines():
            print(f"#   {line}", file=self.stream)
        # How long since the case before: what a test waits for is found here. The first has setUpModule's time, too.
        now = time.monotonic()
        print(f"#   {now - self.last:.1f} s", file=self.stream)
        self.last = now
        if not ok:
            self.failures_text.append(f"failed: {name}\n{details.rstrip()}")
        self.stream.flush()

    def case(self, name, wrong):
        """One more case, which is no method of a test: good when nothing is wrong."""
        self._line(not wrong, name, details="\n".join(wrong))

    def repeat_failures(self):
        """Once more at the end: test runners and people read the last lines of a long log."""
        for text in self.failures_text:
            lines = text.splitlines()
            for line in [lines[0], *lines[1:][-12:]]:
                print(f"# {line[:600]}", file=self.stream)
        self.stream.flush()

    def startTest(self, test):
        super().startTest(test)
        self._sub_failed = False

    def addSuccess(self, test):
        if not self._sub_failed:
            self._line(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line(False, test, details=self._text(err))

    def addError(self, test, err):
        super().addError(test, err)
        self._line(False, test, details=self._text(err))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line(True, test, f" # SKIP {reason}")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._line(True, test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._line(False, test, details="succeeded, but is marked as an expected failure")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._sub_failed = True
            self._line(False, subtest, details=self._text(err))

    @staticmethod
    def _text(err):
        return "".join(traceback.format_exception(*err))


def run_module(module, patterns=None, setup_only=None):
    """Runs the tests of a module; setup_only: a function to call after setUpModule instead. Returns TapResult."""
    loader = unittest.TestLoader()
    if patterns:
        loader.testNamePatterns = [p if "*" in p else f"*{p}*" for p in patterns]
    result = TapResult()
    if setup_only:
        getattr(module, "setUpModule", lambda: None)()
        try:
            setup_only()
        finally:
            getattr(module, "tearDownModule", lambda: None)()
        return result
    loader.loadTestsFromModule(module).run(result)
    return result
