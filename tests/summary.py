#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads meson's test logs (LABEL=FILE ...; LABEL=built for a build that is the test) and prints a table of all tests;
the last line counts single cases. What a test wants to be seen (TAP comments "# show: ...") stands above the table.

A test program that reports its cases (cmocka, Python's unittest, TAP) counts case by case, any other as one. A program
that failed without naming a failed case (crash, time-out) counts as one more failure; a log that is missing too. Exit
status: 0 when nothing failed and something passed.

What failed beside another program and ran once more alone is in LABEL-again.json beside the log. The later verdict
counts; a program that only passed then is called UNSTEADY above the last line, with the cases that had failed: a
defect of the test or a race in the product, to be found, which doesn't hide what else a run has to tell.

    summary.py --failed FILE    prints the names of FILE's tests that failed, for that run; not those in which a
                                sanitizer or valgrind found an error, which no load excuses
"""

import json
import re
import sys

CMOCKA = re.compile(r"^\[\s+(OK|FAILED|ERROR|SKIPPED)\s+\] (\w\S*)$", re.M)
TAP = re.compile(r"^(ok|not ok) \d+(?: - )?([^#\n]*)(?:# *(SKIP|TODO)\S* *(.*))?$", re.M)
REPORT = re.compile(r"ERROR: (?:Address|Leak)Sanitizer|: runtime error: |Invalid (?:read|write) of size")
UNITTEST_RESULT = re.compile(r"^Ran (\d+) tests? in .*\n\n(OK|FAILED|NO TESTS RAN)(?: \((.*)\))?", re.M)


def count_cmocka(text):
    """cmocka prints a failed case once where it ran and again in the closing list: names are counted once."""
    cases = {}
    for verdict, name in CMOCKA.findall(text):
        if name.isdigit():
            continue
        if verdict == "OK":
            cases.setdefault(name, "passed")
        elif verdict == "SKIPPED":
            cases[name] = "skipped"
        else:
            cases[name] = "failed"
    verdicts = list(cases.values())
    return verdicts.count("passed"), verdicts.count("failed"), verdicts.count("skipped")


def count_unittest(text):
    passed = failed = skipped = 0
    for ran, _, detail in UNITTEST_RESULT.findall(text):
        numbers = {k: int(v) for k, v in re.findall(r"([a-z ]+)=(\d+)", detail or "")}
        numbers = {k.strip(): v for k, v in numbers.items()}
        bad = numbers.get("failures", 0) + numbers.get("errors", 0) + numbers.get("unexpected successes", 0)
        skip = numbers.get("skipped", 0)
        failed += bad
        skipped += skip
        passed += max(0, int(ran) - bad - skip)
    return passed, failed, skipped


def count_tap(text):
    verdicts = ["skipped" if directive == "SKIP" else "passed" if ok == "ok" or directive == "TODO" else "failed"
                for ok, _, directive, _ in TAP.findall(text)]
    return verdicts.count("passed"), verdicts.count("failed"), verdicts.count("skipped")


def reasons(text):
    found = re.findall(r"skipped (?:'(.*?)'|\"(.*?)\")$", text, re.M) + re.findall(r"^SKIP:? (.*)()$", text, re.M)
    found += re.findall(r"^1\.\.0 # SKIP (.*)()$", text, re.M)
    found += [(f"{name.strip()}: {why}", "") for _, name, directive, why in TAP.findall(text) if directive == "SKIP"]
    return sorted({a or b for a, b in found})


def failed_cases(text):
    """Names of the cases that failed, for the list at the end."""
    names = [name.strip() for ok, name, directive, _ in TAP.findall(text) if ok == "not ok" and not directive]
    names += [name for verdict, name in CMOCKA.findall(text) if verdict in ("FAILED", "ERROR") and not name.isdigit()]
    names += re.findall(r"^(?:FAIL|ERROR): (\S+)", text, re.M)
    return list(dict.fromkeys(names))


def shown(text):
    """Lines that a test wants to be seen: TAP comments "# show: ..."."""
    return re.findall(r"^# show: (.*)$", text, re.M)


def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def program(name):
    """The name that "meson test" takes: "tbnode:netns / netns-shape" is netns-shape."""
    return name.rsplit(" / ", 1)[-1]


def output(entry):
    return (entry.get("stdout") or "") + "\n" + (entry.get("stderr") or "")


def print_failed(path):
    try:
        entries = read(path)
    except OSError:
        return
    for e in entries:
        if e["result"] not in ("OK", "EXPECTEDFAIL", "SKIP") and not REPORT.search(output(e)):
            print(program(e["name"]))


def once_more(path, entries):
    """The entries with the verdicts of the second run, and (name, failed cases) of those that passed only there."""
    try:
        again = {e["name"]: e for e in read(re.sub(r"\.json$", "-again.json", path))}
    except OSError:
        return entries, []
    unsteady = [(e["name"], failed_cases(output(e))) for e in entries
                if e["name"] in again and again[e["name"]]["result"] == "OK"]
    return [again.get(e["name"], e) for e in entries], unsteady


def main():
    if sys.argv[1:2] == ["--failed"]:
        print_failed(sys.argv[2])
        return 0
    tables = []
    rows, skips, names, unsteady = [], [], {}, []
    passed = failed = skipped = 0
    for argument in sys.argv[1:]:
        label, path = argument.split("=", 1)
        if path == "built":
            rows.append((label, "(builds)", "OK", 1, 0, 0, 0.0))
            passed += 1
            continue
        try:
            entries, twice = once_more(path, read(path))
            unsteady += [(label, name, cases) for name, cases in twice]
        except OSError:
            rows.append((label, "(no log: it did not build or start)", "FAIL", 0, 1, 0, 0.0))
            failed += 1
            continue
        for e in entries:
            text = output(e)
            ok, bad, skip = (sum(n) for n in zip(count_cmocka(text), count_unittest(text), count_tap(text)))
            result = e["result"]
            if result == "SKIP":
                ok, bad, skip = 0, 0, max(1, skip)
            elif result in ("OK", "EXPECTEDFAIL"):
                if ok + bad + skip == 0:
                    ok = 1
            elif bad == 0:
                bad = 1
            if skip:
                skips.append((label, e["name"], reasons(text) or ["no reason given"]))
            rows.append((label, e["name"], result, ok, bad, skip, e.get("duration", 0.0)))
            tables.append((e["name"], shown(text)))
            names[label, e["name"]] = failed_cases(text) if bad else []
            passed, failed, skipped = passed + ok, failed + bad, skipped + skip

    for name, lines in tables:
        if lines:
            print(f"\n{name}:")
            print("\n".join(lines))
    print(f"\n{'run':<10} {'test':<44} {'result':<8} {'passed':>6} {'failed':>6} {'skipped':>7} {'seconds':>8}")
    for label, name, result, ok, bad, skip, seconds in rows:
        print(f"{label:<10} {name:<44} {result:<8} {ok:>6} {bad:>6} {skip:>7} {seconds:>8.1f}")
    for label, name, why in skips:
        for reason in why:
            print(f"SKIPPED {label} {name}: {reason}")
    for label, name, cases in unsteady:
        print(f"UNSTEADY {label} {name}: failed beside another program, passed alone: {', '.join(cases) or 'no case named'}")
    for label, name, result, ok, bad, skip, _ in rows:
        if bad:
            print(f"FAILED {label} {name} ({result})")
            for case in names.get((label, name), []):
                print(f"       {case}")
    tail = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{tail}")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
