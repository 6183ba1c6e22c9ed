#!/usr/bin/env python3
"""The command line as a user sees it: options, exit codes, check, JSON, dry runs, ready-made scripts, outbox, state, serve, init.lua.
usage: run.py [TEST ...]; ends with the count."""
import email, json, os, poplib, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TOP + "/tests/crash")
import world  # the POP3 and the SMTP server
BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))  # what it needs itself no limit may forbid
SAMPLE, INBOX = TOP + "/examples/mail/sample.mbox", TOP + "/examples/mail/inbox"


class Case:
    """A directory with a state and a root of its own; scripts are written into it."""

    def __init__(self):
        self.d = tempfile.mkdtemp(prefix="mailmill-cli-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.d, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        self.env.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))

    def script(self, text, name="s.lua"):
        path = os.path.join(self.d, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def run(self, *args, stdin=None, code=0):
        p = subprocess.run([BINARY, *args], cwd=self.d, env=self.env, input=stdin if stdin is not None else b"", stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
        self.out, self.err = p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")
        if code is not None:
            same(p.returncode, code, "exit code of %s\n%s%s" % (" ".join(args), self.out[-1500:], self.err[-1500:]))
        return self.out

    def events(self, *args, **kw):
        return [json.loads(line) for line in self.run("--json", *args, **kw).splitlines()]

    def files(self, sub=""):
        found = []
        for base, dirs, names in os.walk(os.path.join(self.d, sub)):
            if ".local" in dirs:
                dirs.remove(".local")
            found += [os.path.relpath(os.path.join(base, n), self.d) for n in names]
        return sorted(found)


def same(got, want, what):
    if got != want:
        raise AssertionError("%s: wanted %r, got %r" % (what, want, got))


def has(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError("%r is missing in:\n%s" % (part, text))


# ---- options and exit codes ----

def bad_options(c):
    for args, words in [
        ([], ["--help"]),
        (["--dry-rnu", "x.lua"], ["--dry-rnu", "--dry-run"]),
        (["--limit", "x", "s.lua"], ["--limit", "not a number"]),
        (["--limit"], ["--limit needs a value"]),
        (["--json=yes"], ["--json takes no value"]),
        (["--allow", "net", "s.lua"], ["possible are io, os, bytecode, modules"]),
        (["-x"], ["unknown option -x"]),
        (["-e"], ["-e needs the code"]),
        (["-e", "print(1)"], ["there is no source"]),
        (["stat"], ["'stat'", "did you mean 'state'"]),
        (["run", "run"], ["'run'", "--help lists"]),
        (["xtract", SAMPLE], ["did you mean 'extract'"]),
        (["outbox", "relaese"], ["list, release, flush and drop"]),
        (["state", "--lst"], ["unknown option --lst"]),
        (["serve"], ["what is to be served"]),
        (["serve", SAMPLE, "--cert", "x"], ["go together"]),
        (["outbox", "drop", "1", "--dry-run"], ["--dry-run does not go with outbox"]),
        (["--limit", "1", "state"], ["--limit does not go with state"]),
        (["help", "nothing"], ["no such command"]),
        (["check"], ["which script"]),
        (["run"], ["which script"]),
    ]:
        c.run(*args, code=64)
        has(c.err, *words)
        same(len(c.err.splitlines()), 1, "lines of the error: " + c.err)


def exit_codes(c):
    c.run("--version")
    has(c.out, "mailmill 0.")
    c.run("--help")
    has(c.out, "--dry-run", "mailmill serve", "-e CODE")
    c.run("state", "--help")
    has(c.out, "--mark-all-seen")
    c.run("nosuch.lua", code=66)
    has(c.err, "nosuch.lua")
    c.run("-e", "print(m.subject)", "nosuch.mbox", code=66)
    has(c.err, "nosuch.mbox")
    c.run(c.script("mail.rule(\n"), SAMPLE, code=65)
    has(c.err, "s.lua:")
    c.run(c.script('error("no good")'), SAMPLE, code=65)
    has(c.err, "s.lua:1", "no good")
    c.run(c.script("x = 1"), SAMPLE, code=64)
    has(c.err, "nothing to decide")
    c.run(c.script("mail.on_message(function(m) end)"), code=64)
    has(c.err, "no source")
    c.run(c.script("mail.on_message(function(m) end)"), "--colour", SAMPLE, code=64)
    has(c.err, "--colour")
    c.run(c.script("mail.on_message(function(m) end)"), SAMPLE)
    same(c.err, "", "quiet where nothing was to tell")


def one_line(c):
    """-e: standard output is the script's alone."""
    c.run("-e", "print(m.subject)", SAMPLE)
    same(len(c.out.splitlines()), 12, "subjects")
    has(c.out, "Ihre Rechnung zur Bestellung 4711 – vielen Dank!")
    c.run("-e", "print(m.size", SAMPLE, code=65)
    has(c.err, "-e:1")


def standard_input(c):
    with open(SAMPLE, "rb") as f:
        data = f.read()
    c.run("-e", "print(m.from)", "-", stdin=data)
    same(len(c.out.splitlines()), 12, "messages of an mbox from standard input")
    with open(INBOX + "/2-orders.eml", "rb") as f:
        c.run("-e", "print(m.from)", "-", stdin=f.read())
    same(c.out, "orders@acme.example\n", "one message from standard input")


def limit_and_sources(c):
    s = c.script('mail.source "nowhere.mbox"\nmail.on_message(function(m) print(m.source) end)')
    c.run(s, "--limit", "2", SAMPLE, INBOX)
    same(len(c.out.splitlines()), 4, "two messages of each source, and not the script's own")
    c.run(s, code=66)
    has(c.err, "nowhere.mbox")


# ---- check ----

MISTAKES = """mail.acount { host = "x" }
mail.limits { txt = 1 }
mail.rule("A", { form = "*@x", attachment = { nmae = "*.pdf" } }, function(m)
  if m.subjct == "x" then m:delivr "Y" end
  for part in m:attachments { nam = "*.pdf" } do
    part:save("x/{dat:%Y}/{vars.number} {name}", { on_conflit = "keep" })
    print(part.nme, m.from.domian)
  end
  m:subject()
  undefined_thing(3)
end)
local t = { a = 1 }
function t.f(x) return x.anything, t.b end
known = 5
print(knwon, t.f)
"""


def check_mistakes(c):
    s = c.script(MISTAKES)
    for args in (["check", s], [s, SAMPLE]):
        c.run(*args, code=65)
        for line, words in [(1, ["'acount'", "'account'"]), (2, ["'txt'", "'text'"]), (3, ["'form'", "'from'"]), (3, ["'nmae'", "'name'"]),
                            (4, ["'subjct'", "'subject'"]), (4, ["'delivr'", "'deliver'"]), (5, ["'nam'", "'name'"]), (6, ["{dat}", "'date'"]),
                            (6, ["'on_conflit'", "'on_conflict'"]), (7, ["'nme'", "'name'"]), (7, ["'domian'", "'domain'"]),
                            (9, ["is a field"]), (10, ["undefined_thing"]), (15, ["'knwon'", "'known'"])]:
            lines = [text for text in c.err.splitlines() if "s.lua:%d: " % line in text]
            if not any(all(w in text for w in words) for text in lines):
                raise AssertionError("line %d lacks %s:\n%s" % (line, words, c.err))
        same(len(re.findall(r"s\.lua:\d+: ", c.err)), 14, "mistakes:\n" + c.err)
    same(c.out, "", "nothing was run")


FINE = """#!/usr/bin/mailmill
local helper <const> = require "helper"
local names = setmetatable({}, { __index = function(t, k) return k end })
goto start
::start::
for i = 1, 3 do names[i] = i end
local function f(m, ...) return m.whatever, select("#", ...) end
local text = [==[
]] m.subjct ]==] .. 'a\\'b' .. "\\u{48}\\x41\\065\\z
   c"
counter = (counter or 0) + 0x1p4 // 1 ~ 2
function string.shout(s) return s:upper() .. "!" end
print(("x"):shout())
mail.rule("x", { any = { { subject = "*" }, { size = 5 } }, header = { Whatever = "*" }, vars = { x = false } }, function(m)
  local subject = m.subject
  subject = { anything = 1 }
  print(subject.anything, m.vars.anything, m.from.domain:upper(), #m.to, m.to[1], text, f(m), helper.help(), ("x"):rep(3), m:header "X" or "")
  for i, part in ipairs(m:parts()) do print(i, part.type, part.size // 2) end
  local m = { own = 1 }
  print(m.own)
  m:save "a{{b}}"
end)
mail.on_finish(function(run) print(run.messages, os.time(), helper_global) end)
"""


def check_fine(c):
    c.script("helper_global = 1\nreturn { help = function() return 1 end }", "helper.lua")
    c.run("check", c.script(FINE.replace('  m:save "a{{b}}"\n', "")))
    same(c.err, "", "no mistakes")
    for path in sorted(os.listdir(TOP + "/examples")):
        if path.endswith(".lua"):
            c.run("check", TOP + "/examples/" + path)
    for path in sorted(os.listdir(TOP + "/scripts")):
        if path.endswith(".lua"):
            c.run("check", TOP + "/scripts/" + path)


def check_module(c):
    """A module beside the script is checked with it."""
    c.script("return { f = function() return undefined_name end }", "helper.lua")
    c.run("check", c.script('local h = require "helper"\nmail.on_message(function(m) h.f() end)'), code=65)
    has(c.err, "helper.lua:1", "undefined_name")


def allow(c):
    s = c.script('mail.on_message(function(m) os.execute "true" io.write(m.size, "\\n") end)')
    c.run(s, "--limit", "1", SAMPLE, code=65)
    has(c.err, "--allow os", "--allow io")
    c.run(s, "--allow", "io", "--allow=os", "--limit", "1", SAMPLE)
    same(c.out, "301\n", "io.write")


def declarations(c):
    """What only running the top level shows: all at once as well."""
    s = c.script('local o = { host = "h" }\nmail.account(o)\nmail.smarthost { host = "x", tls = "maybe" }\nmail.on_message(function(m) end)')
    c.run(s, SAMPLE, code=65)
    has(c.err, "s.lua:2", "user", "s.lua:3", "maybe")


# ---- deciding ----

def dry_run(c):
    s = c.script('mail.rule("Keep", {}, function(m)\n  m:save "all/{subject}"\n  m:deliver "A"\n  mail.store "x"[m.size] = 1\nend)')
    before = c.files()
    c.run("--dry-run", s, SAMPLE)
    has(c.out, "save all/Lunch on Thursday", "deliver A", "[Keep]", "tom@example.com")
    has(c.err, "nothing was changed")
    same(c.files(), before, "files after a dry run")
    same(os.path.exists(c.d + "/.local"), False, "a state after a dry run")
    c.run(s, SAMPLE)
    same(len([f for f in c.files() if f.startswith("A/new/")]), 12, "deliveries of the real run")
    c.run("-n", "-e", 'error("x")', SAMPLE, "--limit", "1", code=75)
    has(c.out, "would be held")


def json_shape(c):
    s = c.script('print "no JSON"\nmail.on_message(function(m) print "not JSON" m:save "s/{index}" if m.from.user == "tom" then error "no Toms" end m:discard() end)')
    events = c.events(s, SAMPLE, code=75)
    kinds = [e["event"] for e in events]
    same((kinds.count("message"), kinds.count("held"), kinds.count("source"), kinds[-1]), (10, 2, 1, "end"), "events")
    first = next(e for e in events if e["event"] == "message")
    same((first["subject"], first["from"], first["number"], first["discarded"]), ("Lunch on Thursday?", "anna.weber@example.com", 1, True), "a message")
    same([e["effect"] for e in first["effects"]], ["save"], "its effects")
    held = next(e for e in events if e["event"] == "held")
    has(held["error"], "no Toms")
    has(held["traceback"], "s.lua:2")
    same((events[-1]["messages"], events[-1]["held"]), (10, 2), "the end")


def held_and_state(c):
    s = c.script('mail.on_message(function(m) if m.subject:contains "lunch" then error("not today") end m:deliver "A" end)')
    c.run(s, SAMPLE, code=75)
    has(c.err, "not today", "traceback", "s.lua:1", "2 held")
    c.run("state")
    has(c.out, "not today", "held", "1 attempt", SAMPLE)
    rows = c.events("state", "held")
    same([(r["state"], r["attempts"]) for r in rows], [("held", 1)] * 2, "held rows")
    c.run("state", "show", str(rows[0]["id"]))
    has(c.out, "Subject: Lunch on Thursday?", "half past twelve")
    has(c.err, "not today")
    c.run("state", "show", "999", code=66)
    c.run("state", "show", "x", code=64)
    c.run("state", "forget", code=64)
    c.run("state", "forget", str(rows[1]["id"]))
    same(len(c.events("state", "held")), 1, "held after one was forgotten")
    c.run("state", "requeue", str(rows[0]["id"]))
    same(c.events("state", "held")[0]["attempts"], 0, "attempts after requeue")
    c.run(c.script('mail.on_message(function(m) m:deliver "B" end)'), "--failed", SAMPLE)
    same(len([f for f in c.files() if f.startswith("B/new/")]), 1, "delivered by --failed")
    same(c.events("state", "held"), [], "nothing is held any more")


def outbox(c):
    s = c.script('mail.smarthost { host = "127.0.0.1", port = 9, from = "me@example.org" }\n'
                 'mail.rule("u", { subject = "urgent*" }, function(m) m:forward "a@example.org" m:run_after { "true" } end)')
    c.run(s, SAMPLE)
    has(c.err, "waits in the outbox" if "1 outward" in c.err else "wait in the outbox", "mailmill outbox release")
    rows = c.events("outbox")
    same([r["state"] for r in rows], ["waiting", "waiting"], "outbox")
    same([r.get("to") or r["argv"] for r in rows], [["a@example.org"], ["true"]], "what waits")
    same([r["subject"].lower()[:11] for r in rows], ["fwd: urgent", "urgent" + rows[1]["subject"].lower()[6:11]], "a forward's subject is the mail's own")
    c.run("outbox")
    has(c.out, "to a@example.org", "run true", "waiting")
    c.run("outbox", "release", str(rows[0]["id"]))
    same([r["state"] for r in c.events("outbox")], ["ready", "waiting"], "after releasing one")
    c.run("outbox", "release", "77", code=66)
    c.run("outbox", "flush", s, code=75)
    row = c.events("outbox")[0]
    same(row["tries"], 1, "tries after a refused connection")
    has(row["answer"], "refused")
    c.run("outbox", "drop", str(row["id"]))
    c.run("outbox", "drop", str(row["id"]), code=66)
    c.run("outbox", "release")
    c.run("outbox", "flush", s)
    same(c.events("outbox"), [], "the command was run")
    c.run("outbox", "list")
    has(c.out, "empty")


def send(c):
    """--send lets commands of an archive go at once."""
    s = c.script('mail.rule("u", { subject = "urgent*" }, function(m) m:run_after { "sh", "-c", "cat > got" } end)')
    c.run("--send", s, SAMPLE)
    same(c.events("outbox"), [], "outbox")


def quarantine(c):
    s = c.script('mail.rule("x", { subject = "urgent*" }, function(m) error "never" end)')
    for n in range(3):
        c.run(s, SAMPLE, code=75)
    same([r["state"] for r in c.events("state", "held")], ["quarantined"], "after three failures")
    c.run(s, SAMPLE, code=75)   # not settled: somebody has to look
    has(c.err, "1 quarantined message left alone")


def resume(c):
    """A run over an archive that was cut off leaves a mark: the next says so, --resume goes on behind it, and nothing comes twice."""
    n = 1500
    box = c.script("".join("From a@b.example Mon Nov 23 10:00:00 2026\nSubject: %d\n\nbody\n\n" % i for i in range(n)), "in/big.mbox")
    s = c.script('mail.on_message(function(m) local x = 0 for i = 1, 2e4 do x = x + i end m:deliver "All" end)')
    new = os.path.join(c.d, "out/All/new")
    p = subprocess.Popen([BINARY, "--root", "out", s, box], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while p.poll() is None and not (os.path.isdir(new) and os.listdir(new)):
        time.sleep(0.005)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    before = len(os.listdir(new))
    if before == n:
        raise AssertionError("the run was over before it was cut off")
    c.run("--root", "out", s, box, code=64)
    has(c.err, "--resume", "--from-start")
    c.run("--root", "out", "--resume", s, box)
    same(len(os.listdir(new)), n, "messages after --resume")
    c.run("--root", "out2", s, box)      # finished: no mark is left, the next run reads all of it


def machine_failure(c):
    """A root that can't be made is no failure of the script's: held, never quarantined."""
    for n in range(4):
        c.run("--root", "/proc/none", "-e", 'm:deliver "A"', SAMPLE, "--limit", "1", code=75)
        has(c.err, "/proc/none", "held")
    same([(r["state"], r["attempts"]) for r in c.events("state", "held")], [("held", 0)], "what is held")


def full_output(c):
    if not os.path.exists("/dev/full"):
        return
    s = c.script('mail.options { { "x" } }')
    for args in (["-e", "print(m.subject)", SAMPLE], ["state"], ["outbox"], ["outbox", "flush", s], ["--help"], ["help", "run"], ["version"], [s, "--help"]):
        with open("/dev/full", "w") as full:
            p = subprocess.run([BINARY, *args], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=60)
        same(p.returncode, 74, "exit code of " + " ".join(args))
        has(p.stderr.decode(), "standard output can't be written: No space left on device")


def json_of_commands(c):
    """--json: each line an object, whatever the command; what can't be one is refused."""
    s = c.script('mail.smarthost { host = "127.0.0.1", port = 9, from = "me@example.org" }\n'
                 'mail.on_message(function(m) m:forward "a@example.org" m:run_after { "true", "\\xff\\n" } error "held" end)')
    t = c.script('mail.on_message(function(m) m:run_after { "true", "\\xff\\n" } end)', "t.lua")
    same([e["event"] for e in c.events(t, "--limit", "2", SAMPLE)], ["message", "message", "source", "end"], "events")
    rows = c.events("outbox")
    same([r["argv"] for r in rows], [["true", "\ufffd\n"]] * 2, "what waits")
    drop, = c.events("outbox", "drop", str(rows[0]["id"]))
    same((drop["id"], drop["dropped"]), (rows[0]["id"], True), "outbox drop")
    same(c.events("outbox", "release"), [{"released": 1}], "outbox release")
    flush, = c.events("outbox", "flush", s)
    same((flush["sent"], flush["commands"], flush["dead"]), (0, 1, 0), "outbox flush")
    c.events(s, "--limit", "2", SAMPLE, code=75)
    rows = c.events("state", "held")
    same([r["state"] for r in rows], ["held", "held"], "state held")
    again, = c.events("state", "requeue", str(rows[0]["id"]))
    same((again["id"], again["requeued"]), (rows[0]["id"], True), "state requeue")
    gone, = c.events("state", "forget", str(rows[1]["id"]))
    same((gone["id"], gone["forgotten"], len(c.events("state", "held"))), (rows[1]["id"], True, 1), "state forget")
    c.run("state", "show", str(rows[0]["id"]), "--json", code=64)
    for args in (["state", "held", "5"], ["state", "accounts", "x"], ["outbox", "list", "5"], ["outbox", "drop", "5", "6"]):
        c.run(*args, code=64)
        has(c.err, "too many words")


# ---- scripts as commands ----

def show(c):
    c.run("show", SAMPLE, "-H", "X-Spam-Flag")
    has(c.out, "Rechnung März 4711.pdf", "list        digest.lists.example.net", "x-spam-flag YES", "(is application/pdf)")
    c.run("show", "--text", INBOX + "/1-umlauts.eml")
    has(c.out, "Schöne Grüße")
    c.run("show", "--help")
    has(c.out, "usage: mailmill show", "--header NAME")
    c.run("show", "--txt", SAMPLE, code=64)
    has(c.err, "did you mean --text")
    c.run("show", code=64)
    has(c.err, "show: which sources")


def extract(c):
    c.run("extract", SAMPLE, "-o", "out")
    same(c.files("out"), sorted("out/" + n for n in ["Offer 88.pdf", "Rechnung März 4711.pdf", "garden.png", "gate.png", "invoice.pdf",
                                                     "reports.example!example.org!1793923200!1794009599.zip"]), "files")
    c.run("extract", "--type=image/*", "--template", "{from.user}/{name}", "-oimages", SAMPLE)
    same(c.files("images"), ["images/tom/garden.png", "images/tom/gate.png"], "images")
    c.run("extract", "--dry-run", SAMPLE, "-o", "none")
    same(os.path.exists(c.d + "/none"), False, "directory after a dry run")


def options_of_scripts(c):
    s = c.script("""local o = mail.options {
  about = "Tries options.",
  { "many", many = true, value = "X", help = "several" },
  { "count", short = "c", type = "integer", default = 3, help = "a number" },
  { "size", type = "size", default = "1 kB" }, { "age", type = "span", value = "AGE" },
  { "kind", type = "choice", choices = { "a", "b" } },
  { "dash-ed", help = "a flag" },
}
print(table.concat(o.many, "+"), o.count, o.dash_ed, o.kind, o.age, #o.sources)
assert(o.size == 1000, o.size)
mail.on_message(function(m) end)""")
    c.run(s, "--many", "1", "--many=2", "-c7", "--dash-ed", "--kind", "b", "--age", "2 days", "--limit", "1", SAMPLE)
    same(c.out, "1+2\t7\ttrue\tb\t172800\t1\n", "options")
    c.run(s, SAMPLE, "--", INBOX)
    same(c.out, "\t3\tfalse\tnil\tnil\t2\n", "defaults")
    for args, words in [(["--count", "x"], ["'x'", "whole number"]), (["--kind", "c"], ["a, b"]), (["--age", "soon"], ["span"]), (["--count"], ["needs a value"]),
                        (["--dash-ed=1"], ["takes no value"]), (["--cuont", "1"], ["did you mean --count"]), (["-z"], ["unknown option -z"])]:
        c.run(s, SAMPLE, *args, code=64)
        has(c.err, *words)
    c.run(s, "--help")
    has(c.out, "usage: mailmill", "Tries options.", "-c, --count INTEGER", "(3)")
    for text, words in [('mail.options { { "json" } }', ["mailmill's own"]), ('mail.options { { "x", hlp = 1 } }', ["'hlp'", "'help'"]),
                        ('local o = mail.options { { "x" } }\nprint(o.y)', ["no option 'y'"]),
                        ('mail.options { { "x", type = "size", default = "much" } }', ["option x", "'much'", "no size"]),
                        ('mail.options { { "x", type = "choice", choices = { "a" }, default = "b" } }', ["option x", "'b'", "not possible"]),
                        ('mail.options { { "x", many = true } }', ["option x", "flag"]),
                        ('mail.options { { "x", many = true, value = "X", default = "a" } }', ["option x", "list"]),
                        ('mail.options { { "x", short = "y" }, { "z", short = "y" } }', ["-y", "--x", "--z"]),
                        ('mail.options { { "sources" } }', ["--sources", "command line"])]:
        c.run(c.script(text), SAMPLE, code=65)
        has(c.err, *words)


def init_file(c):
    c.script('shared = "from init"\nmail.root "~/Base"', ".config/mailmill/init.lua")
    s = c.script('mail.rule("x", { subject = "urgent*" }, function(m) print(shared) m:deliver "A" end)')
    c.run(s, SAMPLE)
    same(c.out, "from init\n", "a global of init.lua")
    same(len([f for f in c.files("Base") if f.startswith("Base/A/new/")]), 1, "delivered below its root")
    c.run(s, "--root", "Other", SAMPLE)
    same(len(c.files("Other")), 1, "delivered below --root")
    c.script("mail.rot(1)", ".config/mailmill/init.lua")
    c.run(s, SAMPLE, code=65)
    has(c.err, "init.lua:1", "'rot'", "'root'")


# ---- serve and fetch ----

class Served:
    def __init__(self, c, *args):
        self.p = subprocess.Popen([BINARY, "serve", "--json", *args], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.info = json.loads(self.p.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.send_signal(signal.SIGTERM)
        self.code = self.p.wait(10)
        self.p.stdout.close()


def serve(c):
    with Served(c, SAMPLE, "--user", "me") as s:
        same((s.info["host"], s.info["user"], s.info["messages"], s.info["tls"], len(s.info["password"])), ("127.0.0.1", "me", 12, False, 20), "announced")
        box = poplib.POP3("127.0.0.1", s.info["port"], timeout=10)
        box.user("me")
        box.pass_(s.info["password"])
        same(box.stat()[0], 12, "messages")
        has(b"\n".join(box.retr(1)[1]).decode(), "Subject: Lunch on Thursday?")
        box.quit()
        box = poplib.POP3("127.0.0.1", s.info["port"], timeout=10)
        try:
            box.user("me")
            box.pass_("wrong")
            raise AssertionError("a wrong password was taken")
        except poplib.error_proto:
            box.close()
    same(s.code, 0, "exit code after SIGTERM")


def serve_tls(c):
    import ssl
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                           "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", c.d + "/key.pem", "-out", c.d + "/cert.pem"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    same(made.returncode, 0, "openssl")
    with Served(c, SAMPLE, "--cert", "cert.pem", "--key", "key.pem") as s:
        same(s.info["tls"], True, "announced")
        box = poplib.POP3_SSL("127.0.0.1", s.info["port"], timeout=10, context=ssl.create_default_context(cafile=c.d + "/cert.pem"))
        box.user("mailmill")
        box.pass_(s.info["password"])
        same(box.stat()[0], 12, "messages")
        box.quit()
        c.env["PW"] = s.info["password"]
        args = ["fetch", "--host", "127.0.0.1", "--port", str(s.info["port"]), "--user", "mailmill", "--password-env", "PW", "-o", "box"]
        c.run(*args, code=76)
        has(c.err, "certificate")
        c.run(*args, "--ca-file", "cert.pem", "--delete")
        same(len(c.files("box/Inbox/new")), 12, "delivered over TLS")


def stopped(c):
    """SIGINT ends a run in order: what was decided is done, the rest is for the next run, the exit code says so."""
    s = c.script('mail.on_message(function(m) print(m.subject) for p in m:parts() do p:pipe { "sleep", "0.5" } end m:deliver "A" end)')
    p = subprocess.Popen([BINARY, s, SAMPLE], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.3)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    same(p.returncode, 75, "exit code: " + err.decode())
    has(err.decode(), "stopped")
    if len(c.files("A")) >= 12:
        raise AssertionError("it was not stopped")


def closed_output(c):
    s = c.script('mail.on_message(function(m) print(("x"):rep(5000)) m:deliver "A" end)')
    r, w = os.pipe()
    os.close(r)
    p = subprocess.Popen([BINARY, s, SAMPLE], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=w, stderr=subprocess.PIPE)
    os.close(w)
    err = p.communicate(timeout=20)[1].decode()
    has(err, "message")
    if not 0 < len(c.files("A")) < 12:
        raise AssertionError("%d delivered" % len(c.files("A")))


def flush_alone(c):
    """Smarthosts of init.lua are enough to flush."""
    c.run("outbox", "flush")
    has(c.out, "0 sent")


def flush_stopped(c):
    """SIGINT is heard by a flush whose smarthost says nothing; the mail is ready as before, the exit code says try again."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        s = c.script('mail.smarthost { host = "127.0.0.1", port = %d, from = "me@example.org", tls = false }\n'
                     'mail.rule("u", { subject = "urgent*" }, function(m) m:forward "a@example.org" end)' % mute.getsockname()[1])
        c.run(s, SAMPLE)
        c.run("outbox", "release")
        p = subprocess.Popen([BINARY, "outbox", "flush", s], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        mute.settimeout(10)
        talk = mute.accept()[0]
        begun = time.time()
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=20)
        talk.close()
    same(p.returncode, 75, "exit code: " + err.decode())
    has(err.decode(), "stopped; left in the outbox")
    if time.time() - begun > 8:
        raise AssertionError("the stop was heard late")
    same([(r["state"], r["tries"]) for r in c.events("outbox")], [("ready", 0)], "the outbox")


def fetch(c):
    c.script("", "x")
    with Served(c, SAMPLE) as s:
        c.env["PW"] = s.info["password"]
        args = ["fetch", "--host", "127.0.0.1", "--port", str(s.info["port"]), "--user", "mailmill", "--password-env", "PW", "--tls", "none", "-o", "box"]
        c.run(*args, code=65)
        has(c.err, "plaintext_password")
        args.append("--plaintext-password")
        c.run(*args, "--dry-run")
        same(os.path.exists(c.d + "/box"), False, "Maildir after a dry run")
        c.run(*args)
        same(len(c.files("box/Inbox/new")), 12, "delivered")
        c.run(*args)
        same(len(c.files("box/Inbox/new")), 12, "delivered after the second run")
        row = [json.loads(line) for line in c.run("state", "accounts", "--json").splitlines()][0]
        same((row["seen"], row["held"]), (12, 0), "state of the account")
        c.env["PW"] = "wrong"
        c.run(*args, code=77)
        has(c.err, "mailmill@127.0.0.1")
    c.run(*args, code=75)
    has(c.err, "refused")


def accounts(c):
    text = "".join('mail.account { name = "%s", host = "127.0.0.1", port = %%d, user = "%s", password = secret.env "PW%s", tls = false, '
                   "plaintext_password = true }\n" % (n, u, n) for n, u in (("one", "u1"), ("two", "u2")))
    with Served(c, SAMPLE, "--user", "u1") as a, Served(c, INBOX, "--user", "u2") as b:
        c.env.update(PWone=a.info["password"], PWtwo=b.info["password"])
        s = c.script(text % (a.info["port"], b.info["port"]) + "mail.on_message(function(m) print(m.account) m:discard() end)")
        c.run("--account", "three", s, code=64)
        has(c.err, "no account 'three'")
        c.run("--account", "two", s, SAMPLE, code=64)
        c.run("state", "--mark-all-seen", s, "two")
        has(c.out, "3 marked as seen")
        same([line for line in c.out.splitlines() if line in ("one", "two")], [], "no handler ran")
        c.run(s)
        same(sorted(set(c.out.split())), ["one"], "the other account's messages are new")
        c.run(s, "--again", "--account", "two")
        same(c.out.split(), ["two"] * 3, "--again")


def at_terminal(c, *args):
    """Standard error and input at a terminal of 100 columns, as script(1) makes one; what appeared there."""
    import fcntl, pty, select, struct, termios
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    p = subprocess.Popen([BINARY, *args], cwd=c.d, env=dict(c.env, TERM="xterm"), stdin=end, stdout=end, stderr=end)
    os.close(end)
    out = b""
    while select.select([main], [], [], 30)[0]:
        try:
            data = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        out += data
    os.close(main)
    same(p.wait(30), 0, "exit code at a terminal: %r" % out)
    return out


def terminal(c):
    """Nothing of a message reaches a terminal unescaped."""
    c.script("From: a@example.com\nSubject: x =?utf-8?q?=1B=5B31m?= y\nDate: Mon, 2 Nov 2026 10:12:40 +0100\n\nhi\x1b[31m\n", "a.eml")
    text = at_terminal(c, "--dry-run", "-e", "print(m.subject, m.text)", c.d + "/a.eml")
    same(b"\x1b[31m" in text, False, "escapes of the message on the terminal: %r" % text)
    has(text.decode(), "\\x1b[31m")


def H09_words_with_controls(c):
    """What words decode to stays text: in a header that is written, in a forward, on a terminal; the raw bytes are at hand."""
    word = "=?utf-8?q?hi=0D=0ABcc:_evil@example.com=0D=0A=0D=0Abody=00=1B[2J=C2=9B=E2=80=AE?="
    c.script("From: %s <a@example.com>\nTo: b@example.org\nSubject: %s\nDate: Mon, 2 Nov 2026 10:12:40 +0100\n\ntext\n" % (word, word), "a.eml")
    s = c.script('mail.root "out"\nmail.smarthost { host = "127.0.0.1", port = 9, from = "me@example.org" }\nmail.on_message(function(m)\n'
                 'assert(not (m.subject .. m.from_name):find "[%z\\1-\\31\\127]", "a control character")\n'
                 'assert(m.raw:find("=0D=0ABcc", 1, true))\n'
                 'm:deliver("F", { headers = { ["X-Copy"] = m.subject } }) m:forward "z@example.org"\nend)')
    c.run(s, c.d + "/a.eml")
    copy = open(c.d + "/" + [f for f in c.files("out/F") if "/new/" in f or "/cur/" in f][0]).read()
    head = copy.partition("\n\n")[0]
    same([line.split(":")[0] for line in head.splitlines() if line[:1] not in " \t"], ["From", "To", "Subject", "Date", "X-Copy"], "fields of the copy")
    has(c.events("outbox")[0]["subject"], "hi Bcc: evil@example.com")
    text = at_terminal(c, "-e", "print(m.subject, m.from_name)", c.d + "/a.eml")
    same([b for b in (b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae", b"\0") if b in text], [], "what reached the terminal")


def H13_message_ids(c):
    """One Message-ID on two messages: both are handled; as a file name it stays in its directory."""
    for i, ident in enumerate(["<same@x>", "<same@x>", "<../../../../etc/evil>", "<%s>" % ("x" * 100000), "<a\x01b\x1b[2J@x>", "", None]):
        field = "" if ident is None else "Message-ID: %s\n" % ident
        c.script("From: a@example.com\n%sSubject: %d\n\nx\n" % (field, i), "in/%d.eml" % i)
    s = c.script('mail.root "out"\nmail.on_message(function(m)\n'
                 'if not mail.seen(m) then m:save "d/{message_id|none}.eml" end\nend)')
    c.run(s, c.d + "/in")
    files = c.files("out")
    same(len(files), 7, "files saved: %s" % files)
    same({os.path.dirname(f) for f in files}, {"out/d"}, "where they are")
    same([f for f in files if len(os.path.basename(f).encode()) > 200 or os.path.basename(f)[0] in ".-"], [], "names that are none")


def H14_received_in_a_circle(c):
    """A message that has come through more servers than the limit is not sent on."""
    c.script("Received: from a by b; Mon, 2 Nov 2026 10:12:40 +0100\n" * 1000 + "From: a@example.com\n\nx\n", "many.eml")
    c.script("Received: from a by b; Mon, 2 Nov 2026 10:12:40 +0100\n" * 50 + "From: a@example.com\n\nx\n", "fifty.eml")
    for verb in ("m:forward 'z@example.org'", "m:redirect 'z@example.org'"):
        s = c.script('mail.smarthost { host = "127.0.0.1", port = 9, from = "me@example.org" }\nmail.on_message(function(m) %s end)' % verb)
        c.run("--state", c.d + "/" + verb[2:7], s, c.d + "/many.eml", code=75)
        has(c.err, "1000 Received fields", "seems to run in a circle")
        c.run("--state", c.d + "/fifty" + verb[2:7], s, c.d + "/fifty.eml")
    c.run("-e", "print(m.defects['received.loop'])", c.d + "/many.eml")
    same(c.out, "true\n", "the defect")


LOOP = """
mail.account { name = "work", host = "127.0.0.1", port = %d, user = "anna", password = secret.env "PW", tls = false, plaintext_password = true,
               leave_on_server = false }
mail.smarthost { host = "127.0.0.1", port = %d, tls = false, from = "anna@example.com" }
mail.on_message(function(m) %s end)
"""


def S09_to_oneself(c):
    """What mailmill sends into the mailbox that it polls comes back once, and stops there: held, named, left on the server."""
    c.env["PW"] = "secret"
    plain = b"From: b@example.net\nTo: anna@example.com\nSubject: round\nMessage-ID: <1@example.net>\n\ntext\n"
    servers = world.Servers()
    for n, verb in enumerate(["m:forward 'anna@example.com'", "m:forward('anna@example.com', { as = 'inline' })", "m:redirect 'anna@example.com'",
                              "mail.send { to = 'anna@example.com', subject = 'new: ' .. m.subject }"]):
        drop, sink = servers.maildrop, servers.sink = world.Maildrop({1: (plain, [])}), world.Sink()
        args = [c.script(LOOP % (servers.pop3, servers.smtp, verb)), "--state", "%s/state%d" % (c.d, n)]
        c.run(*args)
        same((len(sink.mails), len(drop.left)), (1, 0), "sent and left on the server at first, " + verb)
        drop.left[2] = (sink.mails[0][2], [])
        c.run(*args, code=75)
        has(c.err, "refused: the message was sent by mailmill already", "run in a circle", "1 held")
        c.run(*args, code=75)
        same((len(sink.mails), sorted(drop.left)), (1, [2]), "sent and left on the server at last, " + verb)


def S09_fifty_servers(c):
    """More than 50 Received fields, without our header: refused too; 50 are not."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    send = "mail.send { to = 'b@example.org', text = 'x' }"
    for fields, code, verb in ((50, 0, "m:redirect 'b@example.org'"), (51, 75, "m:redirect 'b@example.org'"), (50, 0, send), (51, 75, send)):
        hops = b"Received: from a by b; Mon, 2 Nov 2026 10:12:40 +0100\n" * fields
        servers.maildrop, sink = world.Maildrop({1: (hops + b"From: b@example.net\nSubject: x\n\nx\n", [])}), world.Sink()
        servers.sink = sink
        c.run(c.script(LOOP % (servers.pop3, servers.smtp, verb)), "--state", "%s/%d%s" % (c.d, fields, verb[:6]), code=code)
        same(len(sink.mails), int(code == 0), "sent with %d fields, %s" % (fields, verb))
    has(c.err, "51 Received fields", "run in a circle")


def S09_replies(c):
    """A reply to what runs in a circle is none: more than 50 Received fields, or our own header; 50 are answered. The message itself is settled."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    script = c.script(LOOP % (servers.pop3, servers.smtp, "local ok, why = m:reply { text = 'hello' }; print(ok, why)"))
    hop = b"Received: from a by b; Mon, 2 Nov 2026 10:12:40 +0100\n"
    for n, (top, said) in enumerate(((hop * 50, None), (hop * 51, "too many servers"), (b"X-Mailmill-Action: 1\n", "mailmill sent it"),
                                     (b"X-Mailmill-Loop: 1\n", "mailmill sent it"))):
        drop, sink = servers.maildrop, servers.sink = world.Maildrop({1: (top + b"From: b@example.net\nSubject: x\n\nx\n", [])}), world.Sink()
        c.run(script, "--state", "%s/state%d" % (c.d, n))
        same((len(sink.mails), len(drop.left)), (int(not said), 0), "answered and left on the server, %d" % n)
        has(c.out, said or "true")


def H13_replies_to_odd_ids(c):
    """A Message-ID that can be written in no field does not keep a message from being answered, nor the answer from being sent."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    script = c.script(LOOP % (servers.pop3, servers.smtp, "m:reply { text = 'hello' }"))
    long = b"<" + b"l" * 3000 + b"@x>"
    odd = [(b"<1\0@x>", b"", None, None), (b"<2\r@x>", b"<a@x> <b\r@x>", None, None), (long, b"<a@x>", None, None),
           (b"<4@x>", b"<a@x> <b\0@x> " + long + b" <c@x>", "<4@x>", "<a@x> <c@x> <4@x>"), (b"<5\xff@x>", b"", None, None)]
    servers.maildrop = world.Maildrop({n: (b"From: b@example.net\nSubject: %d\nMessage-ID: %s\nReferences: %s\n\nx\n" % (n, i, r), [])
                                       for n, (i, r, _, _) in enumerate(odd, 1)})
    sink = servers.sink = world.Sink()
    c.run(script)
    same((len(sink.mails), len(servers.maildrop.left)), (len(odd), 0), "answered and left on the server")
    for n, (_, _, to, thread) in enumerate(odd, 1):
        mail, = [m[2] for m in sink.mails if b"\nSubject: Re: %d\n" % n in m[2]]
        same([len(line) for line in mail.split(b"\n") if len(line) > 998], [], "long lines")
        head = email.message_from_bytes(mail)
        same((head["In-Reply-To"], head["References"] and " ".join(head["References"].split())), (to, thread), "the thread of %d" % n)


def S10_a_million_forwards(c):
    """A script that forwards without end sends nothing; one that swallows the error sends four a message, and twenty an account's run; one that
    swallows it too often runs out of room, and sends nothing either."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    mail = {n: (b"From: b@example.net\nSubject: %d\n\ntext\n" % n, []) for n in range(1, 9)}
    many, tried = "more than 4 new mails for one message", "for i = 1, %d do pcall(m.forward, m, 'z@example.org') end"
    for verb, code, sent, waiting, said in [("for i = 1, 1000000 do m:forward 'z@example.org' end", 75, 0, 0, many),
                                            (tried % 1000000, 75, 0, 0, "what was decided for one message takes more than"),
                                            (tried % 1000, 0, 20, 12, "12 outward actions wait in the outbox")]:
        if "1000000" in verb and b"__tsan_init" in open(BINARY, "rb").read():
            print("skipped: S10_a_million_forwards: the thread sanitizer keeps the signal back that ends a script's loop")
            continue
        servers.maildrop, sink = world.Maildrop(mail), world.Sink()
        servers.sink = sink
        state = "%s/state%d" % (c.d, verb.count("pcall") + sent)
        c.run(c.script(LOOP % (servers.pop3, servers.smtp, verb)), "--state", state, code=code)
        has(c.err, said, "8 held" if code else "mailmill outbox release")
        same(len(servers.maildrop.left), 8 if code else 0, "left on the server")
        same((len(sink.mails), len(c.events("outbox", "--state", state))), (sent, waiting), "sent and waiting, " + verb)
    subjects = [line for _, _, body, _, _ in sink.mails for line in body.splitlines() if line.startswith(b"Subject: Fwd:")]
    same(max(subjects.count(s) for s in set(subjects)), 4, "most for one message")


def S10_run_after_run(c):
    """A hundred an hour from one account, however often it is run; the rest waits, and leaves with `outbox release` or --send."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    sink = servers.sink = world.Sink()
    verb = "for i = 1, 4 do m:forward('z' .. i .. '@example.org') end"
    args = [c.script(LOOP % (servers.pop3, servers.smtp, verb)), "--state", c.d + "/state"]
    sent = [20, 52, 84, 100, 100]  # 32 a run, the first of which may send 20
    for n, upto in enumerate(sent):
        servers.maildrop = world.Maildrop({k: (b"From: b@example.net\nSubject: %d.%d\n\ntext\n" % (n, k), []) for k in range(1, 9)})
        c.run(*args)
        same(len(sink.mails), upto, "sent after %d runs" % (n + 1))
    has(c.err, "32 outward actions wait in the outbox")
    same(len(c.events("outbox", "--state", c.d + "/state")), 60, "waiting")
    servers.maildrop = world.Maildrop({1: (b"From: b@example.net\nSubject: last\n\ntext\n", [])})
    c.run("--send", *args)
    same(len(sink.mails), 104, "sent with --send")


def worst_of_several(c):
    """Of several sources that fail, the one that a person must act on gives the exit code, not the one that fails last."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        nobody = s.getsockname()[1]  # given up after three tries, in some 3 s
    two = "".join('mail.account { name = "%s", host = "127.0.0.1", port = %d, user = "u", password = secret.env "PW"%s }\n' % a for a in (
        ("plain", world.Servers().pop3, ""), ("away", nobody, ", tls = false, plaintext_password = true")))
    c.env["PW"] = "secret"
    c.run(c.script(two + "mail.on_message(function(m) end)"), code=76)
    has(c.err, "plain: ", "away: ")


def mark_all_seen(c):
    """What a server has is marked by its UID: nothing is read for it, and what was marked so never leaves the server."""
    c.env["PW"] = "secret"
    servers = world.Servers()
    mail = {n: (b"From: b@example.net\nSubject: %d\n\ntext\n" % n, []) for n in range(1, 6)}
    drop = servers.maildrop = world.Maildrop(dict(mail))
    s = c.script(LOOP % (servers.pop3, servers.smtp, "print(m.subject) m:discard()"))
    c.run("state", "--mark-all-seen", s)
    has(c.out, "5 marked as seen")
    same(drop.events, [("QUIT", 0)], "what the server was asked")
    drop.left[6] = (b"Subject: six\n\ntext\n", [])
    c.run(s)
    same((c.out, sorted(drop.left)), ("six\n", [1, 2, 3, 4, 5]), "seen by the script, left on the server")
    c.run("state", "--mark-all-seen", s)
    has(c.out, "0 marked as seen")
    c.run(s, "--again")
    same((len(c.out.split()), sorted(drop.left)), (5, []), "--again sees them")


def progress(c):
    """A run that takes its time shows a line for each source at a terminal, and nothing in a pipe."""
    s = c.script('mail.on_message(function(m) for p in m:parts() do p:pipe { "sleep", "1.3" } end end)')
    text = at_terminal(c, "--limit", "1", s, SAMPLE).decode()
    has(text, "sample.mbox", "/s", "\x1b[J", "1 message")
    c.run("--limit", "1", s, SAMPLE)
    same(c.err, "", "in a pipe")


def demo(c):
    p = subprocess.run(["sh", TOP + "/examples/demo.sh", BINARY], env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    out = p.stdout.decode()
    same(p.returncode, 0, "exit code\n" + p.stderr.decode())
    has(out, "12 messages on 127.0.0.1", "Archive/Billing/new/… × 3", "Inbox/new/… × 8", "Rechnung März 4711.pdf", "to oncall@example.org", "0 messages, 12 seen before")


def man_page(c):
    page = os.path.join(os.path.dirname(BINARY), "mailmill.1")
    text = open(page).read()
    has(text, "mark\\-all\\-seen", "leave_on_server", "EXIT STATUS")
    if shutil.which("mandoc"):
        p = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], stdout=subprocess.PIPE)
        same(p.stdout.decode(), "", "mandoc's complaints")


# ---- declarations, signals and limits of the machine ----

def C05_declarations_that_cannot_be(c):
    """Unknown keys, an account twice, ports and limits that are none: all at once, each with its line, and nothing connects or runs."""
    s = c.script('mail.account { name = "a", host = "h", user = "u", password = secret.env "P", prot = 1 }\n'
                 'mail.account { name = "b", host = "h", user = "v", password = secret.env "P", port = 0 }\n'
                 'mail.account { name = "c", host = "h", user = "w", password = secret.env "P", port = 70000 }\n'
                 'mail.account { name = "a", host = "g", user = "u", password = secret.env "P" }\n'
                 'mail.account { name = "d", host = "h", user = "u", password = secret.env "P" }\n'
                 'mail.account { name = "e", host = "h", user = "x", password = secret.env "P", limit = -1 }\n'
                 'mail.limits { depth = -1 }\n'
                 'mail.account { name = "f", host = "h", user = "y", password = secret.env "P", timeout = 4294968 }\n'
                 'mail.account { name = "g", host = "h", user = "z", password = secret.env "P", timeout = 8e18 }\n'
                 'mail.smarthost { host = "h", timeout = 4294968 }\n'
                 'print "ran"\nmail.on_message(function(m) print "decided" end)\n')
    c.run(s, SAMPLE, code=65)
    has(c.err, "s.lua:1", "'prot'", "'port'")
    same(c.out, "", "nothing was run")
    s = c.script(open(s).read().replace(", prot = 1", "").replace('print "ran"', ""))
    c.run(s, SAMPLE, code=65)
    for line, words in [(2, ["port", "0"]), (3, ["port", "70000"]), (4, ["account 'a'"]), (5, ["mailbox of account 'a'"]), (6, ["limit", "-1"]), (7, ["depth", "-1"]),
                        (8, ["timeout", "1 hour"]), (9, ["timeout", "1 hour"]), (10, ["timeout", "1 hour"])]:
        if not any("s.lua:%d" % line in text and all(w in text for w in words) for text in c.err.splitlines()):
            raise AssertionError("line %d lacks %s:\n%s" % (line, words, c.err))
    same(c.out, "", "nothing was decided")


class Mailboxes(threading.Thread):
    """Any number of mailboxes with a message each, or these; the password of all is "right". passwords: what each user has tried."""

    def __init__(self, mails=None):
        super().__init__(daemon=True)
        self.mails = mails
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port, self.passwords = self.listener.getsockname()[1], {}
        self.start()

    def run(self):
        while True:
            try:
                threading.Thread(target=self.talk, args=(self.listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    def talk(self, s):
        user, f = "", s.makefile("rwb")
        f.write(b"+OK hello\r\n")
        f.flush()
        for line in f:
            word, _, rest = line.decode().strip().partition(" ")
            answer = "+OK"
            if word == "CAPA":
                answer = "+OK\r\nUSER\r\nUIDL\r\nRESP-CODES\r\n."
            elif word == "USER":
                user = rest
            elif word == "PASS":
                self.passwords.setdefault(user, []).append(rest)
                answer = "+OK" if rest == "right" else "-ERR [AUTH] no"
            mails = self.mails or [b"Subject: for %s\r\n\r\nbody\r\n" % user.encode()]
            if word == "STAT":
                answer = "+OK %d %d" % (len(mails), sum(map(len, mails)))
            elif word == "LIST":
                answer = "\r\n".join(["+OK"] + ["%d %d" % (i + 1, len(m)) for i, m in enumerate(mails)] + ["."])
            elif word == "UIDL":
                answer = "\r\n".join(["+OK"] + ["%d %d-of-%s" % (i + 1, i, user) for i in range(len(mails))] + ["."])
            elif word == "RETR":
                mail = mails[int(rest) - 1]
                lines = [b"." + line if line.startswith(b".") else line for line in mail.split(b"\r\n")]
                answer = "+OK\r\n" + (b"\r\n".join(lines) + (b"." if mail.endswith(b"\r\n") else b"\r\n.")).decode("latin-1")
            f.write(answer.encode("latin-1") + b"\r\n")
            f.flush()
            if word == "QUIT":
                break
        s.close()


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("waited %d s in vain" % seconds)
        time.sleep(0.02)


def C07_one_wrong_password_among_many(c):
    """One refused proof stops that account, once; the others do not notice."""
    boxes, n = Mailboxes(), 200
    c.env.update(GOOD="right", BAD="wrong")
    s = c.script('for i = 1, %d do\n  mail.account { name = "a" .. i, host = "127.0.0.1", port = %d, user = "u" .. i, tls = false, '
                 'plaintext_password = true,\n    password = secret.env(i == 7 and "BAD" or "GOOD") }\nend\n'
                 'mail.on_message(function(m) m:deliver "In" end)\n' % (n, boxes.port))
    c.run(s, code=77)
    boxes.listener.close()
    has(c.err, "a7")
    same(boxes.passwords["u7"], ["wrong"], "what was tried for the account with the wrong password")
    same([u for u, tried in boxes.passwords.items() if u != "u7" and tried != ["right"]], [], "other accounts")
    same((len(boxes.passwords), len(c.files("In/new"))), (n, n - 1), "accounts, messages")
    same([line for line in c.err.splitlines() if re.search(r"\ba(?!7\b)\d+\b", line)], [], "words about other accounts")


def T17_round_trip(c):
    """Any bytes: what is stored is what was sent, CRLF as LF, and a last line that was not ended is."""
    import random
    seed = os.environ.get("SEED") or str(random.randrange(10**6))
    dice, mails = random.Random(seed), []
    pieces = [b"\r\n", b"\r", b"\n", b"\0", b".", b"..", b"\r\n.", b"\r\n..\r\n", b"\r\r\n", b"\n.\r\n", b"\xff\xfe", b"\xe9", b"From ", b"text ", b": ", b"-ERR x", b"+OK"]
    for i in range(300):
        body = b"".join(dice.choice(pieces) if dice.random() < 0.8 else dice.randbytes(dice.randrange(40)) for _ in range(dice.randrange(400)))
        mails.append(b"Subject: %d\r\n\r\n" % i + body)
    boxes = Mailboxes(mails)
    c.env["PW"] = "right"
    c.run("fetch", "--host", "127.0.0.1", "--port", str(boxes.port), "--user", "me", "--password-env", "PW", "--tls", "none", "--plaintext-password", "-o", "box")
    boxes.listener.close()
    want = sorted(m.replace(b"\r\n", b"\n") + (b"" if m.endswith(b"\r\n") else b"\n") for m in mails)
    got = sorted(open(os.path.join(c.d, f), "rb").read() for f in c.files("box/Inbox/new"))
    wrong = [(w[:60], g[:60]) for w, g in zip(want, got) if w != g]
    same((len(got), wrong[:2]), (300, []), "seed %s (SEED=%s plays it again)" % (seed, seed))


def D08_signals(c):
    """In the middle of a handler: TERM, INT and HUP end the run in order, PIPE and a stop that is continued do not; nothing is lost or twice."""
    with Served(c, SAMPLE) as served:
        c.env["PW"] = served.info["password"]
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGSTOP"):
            box = "box-" + name
            s = c.script('mail.root "%s"\nmail.account { name = "%s", host = "127.0.0.1", port = %d, user = "mailmill", password = secret.env "PW", tls = false, '
                         'plaintext_password = true }\nmail.on_message(function(m) m:pipe { "touch", "%s/%s" } m:pipe { "sleep", "0.1" } m:deliver "In" end)'
                         % (box, name, served.info["port"], c.d, name), name + ".lua")
            p = subprocess.Popen([BINARY, s], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(lambda: os.path.exists(c.d + "/" + name))
            p.send_signal(getattr(signal, name))
            if name == "SIGSTOP":
                time.sleep(1)
                p.send_signal(signal.SIGCONT)
            err = p.communicate(timeout=40)[1].decode()
            done = len(c.files(box + "/In/new"))
            if name in ("SIGPIPE", "SIGSTOP"):
                same((p.returncode, done), (0, 12), name + ": " + err)
            else:
                same((p.returncode, done < 12), (75, True), name + ": " + err)
            c.run(s)
            same((len(c.files(box + "/In/new")), c.files(box + "/In/tmp")), (12, []), name + ", after another run")


def D08_a_stop_while_a_command_runs(c):
    """The command of a part:pipe is ended, and its message is as if it had not been decided, whatever the script makes of the error."""
    for how in ("m:pipe(sleep)", "if not pcall(m.pipe, m, sleep) then m:save 'wrong' mail.store('s').wrong = 'x' end",
                "coroutine.wrap(function() m:pipe(sleep) end)()"):
        s = c.script('local sleep = { "sh", "-c", "touch begun; exec sleep 61", timeout = "5 min" }\n'
                     'mail.on_message(function(m) if m.subject:contains "lunch" then print(mail.store("s").wrong) else m:deliver "In" end\n'
                     'if m.subject:contains "lunch" then %s end end)' % how)
        begun = time.monotonic()
        p = subprocess.Popen([BINARY, s, SAMPLE, "--from-start"], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: os.path.exists(c.d + "/begun"))
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=40)
        if time.monotonic() - begun > 20:
            raise AssertionError("the stop was heard after %d s" % (time.monotonic() - begun))
        same((p.returncode, out), (75, b"nil\n"), err.decode())
        same((c.events("state", "held"), os.path.exists(c.d + "/wrong")), ([], False), "held, and what was saved because of a stop")
        os.unlink(c.d + "/begun")


def D09_little_of_everything(c):
    """Few descriptors, little memory, few processes: it works, or it says clearly why not; then all is there with the next run."""
    import resource
    with Served(c, SAMPLE) as served:
        c.env["PW"] = served.info["password"]
        for name, what, limit in [("files", resource.RLIMIT_NOFILE, 32), ("files", resource.RLIMIT_NOFILE, 8), ("memory", resource.RLIMIT_AS, 64 << 20),
                                  ("memory", resource.RLIMIT_AS, 24 << 20), ("processes", resource.RLIMIT_NPROC, 4), ("size", resource.RLIMIT_FSIZE, 0)]:
            if SANITIZED and what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
                continue
            box = "box-%s-%d" % (name, limit)
            s = c.script('mail.root "%s"\nmail.account { name = "%s", host = "127.0.0.1", port = %d, user = "mailmill", password = secret.env "PW", tls = false, '
                         'plaintext_password = true }\nmail.on_message(function(m) m:deliver "In" end)' % (box, box, served.info["port"]), box + ".lua")
            p = subprocess.run([BINARY, s], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                               preexec_fn=lambda: resource.setrlimit(what, (limit, limit)))
            err, done = p.stderr.decode("utf-8", "replace"), len(c.files(box + "/In/new")) if os.path.isdir(c.d + "/" + box) else 0
            if p.returncode == 0:
                same(done, 12, "%s %d: all is well, it says" % (name, limit))
            elif not err.strip() or p.returncode < 0:
                raise AssertionError("%s %d: exit code %d without a word: %s" % (name, limit, p.returncode, err))
            c.run(s)
            same(len(c.files(box + "/In/new")), 12, "%s %d, after another run; the first said %s" % (name, limit, err))


def status_of(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def C08_closed_to_others(c):
    """Supervisor and worker: no secret where others can look, no core, no debugger of the same user; and the worker is confined."""
    s = c.script('mail.account { name = "a", host = "127.0.0.1", port = 1, user = "u", password = secret.env "C08_SECRET" }\n'
                 'mail.on_message(function(m) end)')
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    if nobody:
        binary = shutil.copy(BINARY, c.d + "/mailmill")
        os.chmod(c.d, 0o755)
        os.mkdir(c.d + "/home")
        os.chown(c.d + "/home", 65534, 65534)
    else:
        binary = BINARY
        os.mkdir(c.d + "/home")
    p = subprocess.Popen([binary, "--verbose", s, "-"], cwd=c.d + "/home", env=dict(c.env, HOME=c.d + "/home", C08_SECRET="canary-of-C08"), stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **nobody)
    try:
        worker, until = None, time.time() + 20
        while not (worker and status_of(worker)["Seccomp"] == "2"):
            if time.time() > until or p.poll() is not None:
                raise AssertionError("no worker that is confined")
            time.sleep(0.02)
            children = open("/proc/%d/task/%d/children" % (p.pid, p.pid)).read().split()
            worker = int(children[0]) if children else None
        same(status_of(worker)["NoNewPrivs"], "1", "no new privileges")
        for pid in (p.pid, worker):
            same(os.stat("/proc/%d/environ" % pid).st_uid, 0, "owner of /proc/PID/environ: root where a process is not dumpable")
            has(re.sub(" +", " ", open("/proc/%d/limits" % pid).read()), "Max core file size 0 0")
            for name in ("cmdline", "environ", "maps"):
                with open("/proc/%d/%s" % (pid, name), "rb") as f:
                    same(b"canary-of-C08" in f.read(), False, "the secret in " + name)
            drop = "os.setgroups([]), os.setgid(65534), os.setuid(65534)" if nobody else "0"
            probe = "import ctypes,os,sys\nl=ctypes.CDLL(None,use_errno=True)\n" + drop + "\nsys.exit(ctypes.get_errno() if l.ptrace(16,%d,0,0)==-1 else 200)" % pid
            same(subprocess.run([sys.executable, "-c", probe]).returncode, 1, "errno of attaching a debugger as the same user (EPERM)")
    finally:
        p.stdin.close()
        p.wait(20)


def T13_roots(c):
    """An effect's own root is one that mail.root has named; with Landlock nothing else could be written."""
    s = c.script('mail.root("a", "b")\nmail.on_message(function(m) m:deliver("x", { root = "b/sub" })\n'
                 'local ok, why = pcall(m.deliver, m, "x", { root = "c" }) print(ok, why) end)')
    c.run("--limit", "1", s, SAMPLE)
    has(c.out, "false", "below no root of this run")
    same(len([f for f in c.files("b/sub") if "/new/" in f]), 1, "messages below b/sub")
    same(c.files("c"), [], "files below c")
    c.run("--verbose", "--allow", "os", "--again", "--limit", "1", c.script('mail.on_message(function(m) os.execute "echo ran" end)'), SAMPLE)
    has(c.err, "not confined")
    has(c.out, "ran")


TESTS = [bad_options, exit_codes, one_line, standard_input, limit_and_sources, check_mistakes, check_fine, check_module, allow, declarations, dry_run, json_shape,
         held_and_state, outbox, send, quarantine, resume, machine_failure, full_output, json_of_commands, show, extract, options_of_scripts, init_file, serve, serve_tls, stopped, closed_output, flush_alone, flush_stopped, fetch, accounts, terminal, H09_words_with_controls,
         H13_message_ids, H14_received_in_a_circle, C05_declarations_that_cannot_be, C07_one_wrong_password_among_many, T17_round_trip, D08_signals,
         D08_a_stop_while_a_command_runs, D09_little_of_everything, S09_to_oneself, S09_fifty_servers, S09_replies, H13_replies_to_odd_ids, S10_a_million_forwards, S10_run_after_run, worst_of_several, mark_all_seen, C08_closed_to_others, T13_roots, progress, demo, man_page]


def main():
    passed = failed = 0
    for test in TESTS:
        if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
            continue
        c = Case()
        try:
            test(c)
            passed += 1
        except Exception:
            failed += 1
            print("FAIL %s\n%s" % (test.__name__, traceback.format_exc()))
        finally:
            shutil.rmtree(c.d, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


main()
