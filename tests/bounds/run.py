#!/usr/bin/env python3
"""What a script can do, and what it can't: attacks on time and memory, odd scripts, closed doors. usage: run.py [TEST ...]; ends with the count.

CPU time and memory are what the kernel counted for supervisor and workers together (wait4), so a busy machine changes nothing."""
import atexit, os, re, shutil, sys, tempfile, threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TOP + "/tests/e2e")
import kit  # noqa: E402
from kit import check, same  # noqa: E402
import attacks, pop3  # noqa: E402, E401

D = kit.scratch("mailmill-bounds-")
atexit.register(shutil.rmtree, D, ignore_errors=True)
BUDGET, CAP = 0.5, 64 << 20
SUBJECTS = ["one", "two", "three", "four"]


def mbox(path, subjects):
    with open(path, "w") as f:
        for i, s in enumerate(subjects):
            f.write("From a@x.example Mon Nov 23 05:41:00 2026\nFrom: Ann <ann@x.example>\nTo: me@y.example\nSubject: %s\n"
                    "Message-ID: <%d@x.example>\nDate: Mon, 23 Nov 2026 05:41:00 +0000\n\nbody of %s\n\n" % (s, i, s))
    return path


class Ran:
    """One run: code, out, err, CPU seconds and the largest resident size of all its processes."""
    def __init__(self, args, cwd, limit=120):
        files = [open("%s/%s" % (cwd, n), "w+b") for n in ("stdout", "stderr")]
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.chdir(cwd)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(files[0].fileno(), 1)
            os.dup2(files[1].fileno(), 2)
            os.execv(kit.BINARY, [kit.BINARY, *args])
        timer = threading.Timer(limit, lambda: os.killpg(pid, 9))
        timer.start()
        _, status, use = os.wait4(pid, 0)
        timer.cancel()
        self.code = os.waitstatus_to_exitcode(status)
        self.cpu, self.rss = use.ru_utime + use.ru_stime, 0 if kit.SANITIZED else use.ru_maxrss << 10
        self.out, self.err = [(f.seek(0), f.read().decode("utf-8", "replace"))[1] for f in files]
        for f in files:
            f.close()


class Place:
    """A directory with an mbox of a few messages, a script and a state of its own."""
    def __init__(self, name, script, subjects=SUBJECTS):
        self.d = "%s/%s" % (D, re.sub(r"\W+", "-", name)[:60])
        shutil.rmtree(self.d, ignore_errors=True)
        os.makedirs(self.d)
        self.write("s.lua", script)
        self.box = mbox(self.d + "/in.mbox", subjects)

    def write(self, name, content):
        with open("%s/%s" % (self.d, name), "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())

    def run(self, *args, script="s.lua", source="in.mbox", limit=120):
        return Ran(["run", "--state", "state", "--root", "root", *args, script] + ([source] if source else []), self.d, limit)

    def held(self):
        return Ran(["state", "held", "--state", "state"], self.d).out

    def subjects(self, folder="A"):
        got = []
        for name, content in kit.files_below(self.d + "/root/" + folder).items() if os.path.isdir(self.d + "/root/" + folder) else []:
            got.append(re.search(rb"^Subject: (.*)$", content, re.M).group(1).decode())
        return sorted(got)


HANDLER = """mail.limits { cpu = %g }
mail.on_message(function(m)
  m:deliver "A"
  if m.subject == "two" then
    %s
  end
end)
"""
usual = None


def usual_cost():
    """CPU time and memory of the same run without an attack."""
    global usual
    if not usual:
        r = Place("usual", HANDLER % (BUDGET, "local x = 1")).run()
        same(r.code, 0, "the run without an attack: " + r.err)
        usual = (r.cpu, r.rss)
    return usual


def contained(name, body):
    cpu, rss = usual_cost()
    p = Place(name, HANDLER % (BUDGET, body))
    r = p.run()
    check(r.cpu - cpu <= 3 * BUDGET, "%s: %.2f s of CPU, more than %.1f" % (name, r.cpu - cpu, 3 * BUDGET))
    check(r.rss - rss <= CAP + (8 << 20), "%s: %.1f MiB of memory more than without it" % (name, (r.rss - rss) / 2**20))
    check(r.code not in (0, -9), "%s: exit code %d: %s" % (name, r.code, r.err[-300:]))
    same(p.subjects(), sorted(set(SUBJECTS) - {"two"}), name + ": delivered: " + r.err[-500:])
    held = p.held()
    check(re.search("CPU|memory|script|\\.lua|too|recur|order", held) and "1" in held, "%s: held, and why: %r, %s" % (name, held, r.err[-500:]))
    if os.environ.get("SHOW"):
        print("%-60s %6.2f s %7.1f MiB  %s" % (name, r.cpu - cpu, (r.rss - rss) / 2**20, held.strip().splitlines()[-1:]), flush=True)


def L01_attacks():
    """Each ends in time and in memory, the message is held with a reason, the others are delivered, and the exit code says so."""
    for name, body in attacks.L01:
        contained("L01 " + name, body)


def L01_more_attacks():
    for name, body in attacks.MORE:
        contained("L01 " + name, body)


def L01_at_the_top():
    """What a script does while it is loaded is bounded, too: an error that says what, nothing decided, nothing connected to."""
    for name, body in attacks.LOADING:
        p = Place("L01 top: " + name, "mail.limits { cpu = %g }\nmail.account { host = '127.0.0.1', port = 9, user = 'u', password = secret.env 'X' }\n"
                  "mail.on_message(function(m) m:deliver 'A' end)\n%s\n" % (BUDGET, body))
        p.write("loops.lua", "while true do end")
        r = p.run(source=None)
        what = "L01 at the top: " + name
        check(r.cpu <= 3 * BUDGET, "%s: %.2f s of CPU" % (what, r.cpu))
        check(r.rss - usual_cost()[1] <= CAP + (8 << 20), "%s: %.1f MiB" % (what, r.rss / 2**20))
        check(r.code in (65, 70, 75) and re.search("CPU|memory|too large", r.err), "%s: exit code %d: %s" % (what, r.code, r.err))
        check("127.0.0.1" not in r.err and not os.path.exists(p.d + "/root"), "%s: went on: %s" % (what, r.err))


def L01_other_commands():
    """A command that only loads the script is bounded, too."""
    p = Place("L01 other commands", "mail.limits { cpu = %g }\nmail.account { host = '127.0.0.1', port = 9, user = 'u', password = secret.env 'X' }\n"
              "string.find(('a'):rep(3000), '.-.-.-.-b')\n" % BUDGET)
    for words in (["outbox", "flush", "s.lua", "--state", "state"], ["state", "--mark-all-seen", "s.lua", "--state", "state"], ["run", "-n", "s.lua", "--state", "state"]):
        r = Ran(words, p.d)
        check(r.code == 70 and "CPU limit" in r.err and r.cpu <= 3 * BUDGET, "L01 %s: %d, %.2f s, %s" % (words[0], r.code, r.cpu, r.err))


def L01_finalizer_of_one_message():
    """What a handler leaves behind is finalized in its message's time: a finalizer that loops costs that message its turn, and no other."""
    for name, body in (("left behind", "setmetatable({}, { __gc = function() while true do end end })"),
                       ("kept by its coroutine", "local x <const> = setmetatable({}, { __gc = function() while true do end end }) m:pipe { 'true' }"),
                       ("after an error", "kept = setmetatable({}, { __gc = function() while true do end end }) kept = nil error 'no'")):
        contained("L01 finalizer " + name, body)
    p = Place("L01 finalizer at the top", "mail.limits { cpu = %g }\nsetmetatable({}, { __gc = function() while true do end end })\n"
              "mail.on_message(function(m) m:deliver 'A' end)\n" % BUDGET)
    r = p.run()
    check(r.code == 70 and "CPU limit" in r.err, "a finalizer at the top: %d, %s" % (r.code, r.err))
    same((p.subjects(), "no held" in p.held() or "Nothing is held" in p.held()), ([], True), "a finalizer at the top: no message pays for it")


def L01_finalizer_at_the_end():
    """A finalizer that loops when the state closes: everything was done and said, the program ends all the same, with its own code if it has one."""
    p = Place("L01 at the end", "mail.limits { cpu = %g }\nkept = setmetatable({}, { __gc = function() while true do end end })\n"
              "mail.on_message(function(m) print(m.subject) if m.subject == 'none' then error 'no' end m:deliver 'A' end)\n" % BUDGET)
    r = p.run()
    same((r.code, r.out.split()), (70, SUBJECTS), "a finalizer at the end: code and output")
    check(r.cpu <= 3 * BUDGET, "a finalizer at the end: %.2f s of CPU" % r.cpu)
    same(p.subjects(), sorted(SUBJECTS), "a finalizer at the end: delivered")
    check("twice its CPU limit as the script ended" in r.err, "a finalizer at the end: it is said: %s" % r.err)
    p.write("s.lua", open(p.d + "/s.lua").read().replace("'none' then", "'two' then"))
    r = p.run("--from-start")
    same((r.code, r.out.split()), (75, SUBJECTS), "a finalizer at the end, and a message held")


def L02_errors():
    """error() in every form at message k: k is held with a reason, the rest is done."""
    for name, body, words in [
            ("error()", "error()", "nil"), ("error(nil)", "error(nil)", "nil"), ("error({})", "error({})", "table that is no text"),
            ("error(5)", "error(5)", "5"), ("error of a boolean", "error(false)", "false"), ("error of a function", "error(print)", "function"),
            ("error of the message", "error(m)", "message"),
            ("an error whose __tostring raises", "error(setmetatable({}, { __tostring = function() error 'again' end }))", "again"),
            ("an error whose __tostring is no text", "error(setmetatable({}, { __tostring = function() return {} end }))", "must return a string"),
            ("an error in an error handler", "assert(xpcall(error, function(e) error(e) end, 'x'))", "held|error|x"),
            ("an error in __close of an error", "local c <close> = setmetatable({}, { __close = function() error 'closing' end }) error 'first'", "first|closing"),
            ("a runtime error", "local x = nil + 1", "arithmetic"), ("a runtime error in a callback", "('x'):gsub('x', function() return {} end)", "replacement"),
            ("an error in a coroutine", "coroutine.wrap(function() error 'inside' end)()", "inside"),
            ("an error with control characters", "error('\\27[31m\\nred\\0')", r"\\x1b"),
            ("an error of an iterator", "for x in 5 do end", "call")]:
        p = Place("L02 " + name, HANDLER % (BUDGET, body))
        r = p.run()
        same(p.subjects(), ["four", "one", "three"], "L02 %s: delivered" % name)
        check(r.code == 75 and re.search(words, r.err) and "\033" not in r.err, "L02 %s: exit code %d: %s" % (name, r.code, r.err))
        check(re.search(words, p.held()), "L02 %s: the reason stands in the state: %s" % (name, p.held()))


HANDLES = """
local kept, said = nil, 0
local function stale(f, ...)
  local ok, why = pcall(f, ...)
  assert(not ok and tostring(why):find("closed", 1, true), tostring(why))
  said = said + 1
end
local function all_stale(k)
  stale(function() return k.m.subject end) stale(function() return k.m:header "Subject" end) stale(function() return k.m:deliver "B" end)
  stale(function() return k.m.vars end) stale(function() k.m.vars = {} end) stale(function() return k.m:parts() end) stale(function() return k.m:matches { from = "*" } end)
  stale(function() return k.m:reader() end) stale(function() return k.m:addresses "to" end) stale(k.discard, k.m) stale(function() k.m:stop() end)
  stale(function() return k.part.name end) stale(function() return k.part.text end) stale(function() return k.part:save "x" end)
  stale(function() return k.part:reader() end) stale(function() return k.part:parts() end) stale(function() return k.part.message.subject end)
  stale(function() return k.reader:read(1) end) stale(k.lines) stale(function() return mail.seen(k.m) end) stale(function() return mail.seen(k.part) end)
  assert(tostring(k.m) and tostring(k.part) and tostring(k.reader))
  k.reader:close()
  -- plain values of a message stay what they were
  assert(k.from == "ann@x.example" and k.from.user == "ann" and k.records[1].addr == "me@y.example" and #k.defects == 0 and k.to[1] == "me@y.example")
end
local function keep(m)
  local k = { m = m, part = m:parts()[1], reader = m:reader(), lines = m:lines(), from = m.from, records = m:addresses "to", defects = m.defects,
              to = m.to, vars = m.vars, discard = m.discard, store = mail.store "s", parts = m:parts() }
  k.reader:read(1)
  k.lines()
  k.co = coroutine.wrap(function() while true do coroutine.yield(m.subject) end end)
  assert(k.co() == m.subject)
  return k
end
"""


def L03_stale_handles():
    """Every kind of handle kept past its message: "the message is closed", in a later handler, in on_finish, in __gc, in a coroutine."""
    for name, script in [
            ("in a later handler", "mail.on_message(function(m) if kept then all_stale(kept) stale(kept.co) assert(said > 20) end kept = keep(m) m:deliver 'A' end)"),
            ("in on_finish", "mail.on_message(function(m) kept = keep(m) m:deliver 'A' end)\n"
             "mail.on_finish(function() all_stale(kept) stale(kept.co) kept.store.n = 5 assert(kept.store.n == 5) end)"),
            ("in __gc", "local ran = 0\nmail.on_message(function(m) local k = keep(m) setmetatable(k, { __gc = function(o) all_stale(o) ran = ran + 1 end }) m:deliver 'A' end)\n"
             "mail.on_finish(function() collectgarbage() collectgarbage() assert(ran == 4, ran) end)"),
            ("in a coroutine that was kept", "local co\nmail.on_message(function(m)\n  if co then assert(coroutine.resume(co)) end\n"
             "  co = coroutine.create(function() local k = keep(m) while true do coroutine.yield() all_stale(k) end end)\n  assert(coroutine.resume(co)) m:deliver 'A'\nend)"),
            ("after an error", "mail.on_message(function(m) if kept then all_stale(kept) kept = nil m:deliver 'A' return end kept = keep(m) m:deliver 'A' pcall(error) end)"),
            ("the collector between", "mail.on_message(function(m) kept = keep(m) m = nil collectgarbage() m = kept.m m:deliver 'A' collectgarbage() end)\n"
             "mail.on_finish(function() collectgarbage() all_stale(kept) end)"),
            ("store of another message", "local s\nmail.on_message(function(m) s = s or mail.store 'n' s[m.subject] = 1 m:deliver 'A' end)\n"
             "mail.on_finish(function() for _, x in ipairs { 'one', 'two', 'three', 'four' } do assert(s[x] == 1) end end)")]:
        p = Place("L03 " + name, HANDLES + script)
        r = p.run()
        same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L03 %s: %s" % (name, r.err[-700:]))


def L04_yields_and_replacements():
    """A yield across the callback, effects from coroutines, replaced globals and metatables: an error that says so, or no harm."""
    for name, top, body, code, words in [
            ("a yield across the callback", "", "coroutine.yield(1)", 75, "yielded outside of a coroutine of its own"),
            ("a yield in a test", "mail.rule('r', function(m) coroutine.yield() return true end, function(m) end)", "", 75, "yielded"),
            ("a yield in a metamethod", "", "local t = setmetatable({}, { __index = coroutine.yield }) return t.x", 75, "yielded"),
            ("a yield across sort", "", "table.sort({ 3, 2, 1 }, coroutine.yield)", 75, "yield across a C-call boundary"),
            ("effects from a coroutine", "", "coroutine.wrap(function() m:deliver 'A' m:save 'saved' end)()", 0, ""),
            ("a handler that resumes itself", "", "local co = coroutine.running() local ok, e = coroutine.resume(co) assert(not ok) m:deliver 'A'", 0, ""),
            ("a handler that closes itself", "", "local co = coroutine.running() assert(not pcall(coroutine.close, co)) m:deliver 'A'", 0, ""),
            ("a coroutine of one message resumed in the next", "", "if co then assert(coroutine.resume(co, m)) end\n"
             "co = coroutine.create(function(m) while true do m:deliver 'A' m = coroutine.yield() end end) if m.subject == 'one' then assert(coroutine.resume(co, m)) end", 0, ""),
            ("globals replaced", "for _, n in ipairs { 'pairs', 'ipairs', 'type', 'error', 'assert', 'pcall', 'xpcall', 'tostring', 'select', 'next', 'rawget', 'require', 'setmetatable' } do _G[n] = nil end",
             "m:deliver 'A'", 0, ""),
            ("libraries emptied", "for _, t in pairs { string, table, math, os, io, coroutine, utf8, debug } do for k in pairs(t) do t[k] = nil end end", "m:deliver 'A'", 0, ""),
            ("every global replaced by a function that raises", "local G = _G for k in pairs(G) do if k ~= 'mail' then G[k] = function() local x = nil + 1 end end end", "m:deliver 'A'", 0, ""),
            ("_G emptied in a handler", "local next, _G = next, _G", "m:deliver 'A' for k in next, _G do _G[k] = nil end", 0, ""),
            ("the metatable of strings", "", "local mt = getmetatable '' if mt then mt.__index = nil mt.__eq = error end m:deliver 'A'", 0, ""),
            ("setmetatable on a message", "", "setmetatable(m, {})", 75, "table expected"),
            ("getmetatable of a message", "", "assert(type(getmetatable(m)) ~= 'table' and type(getmetatable(m:parts())) ~= 'table' and type(getmetatable(re 'x')) ~= 'table') m:deliver 'A'", 0, ""),
            ("a method called on something else", "", "m.deliver({}, 'A')", 75, "message"),
            ("a method of a part called on a message's list", "", "m:parts()[1].save(m:parts(), 'A')", 75, "message or part expected"),
            ("__gc called by hand", "", "local r = m:reader() r:close() r:close() m:deliver 'A'", 0, ""),
            ("_ENV replaced", "", "local _ENV = { m = m } m:deliver 'A'", 0, ""),
            ("package.loaded emptied", "for k in pairs(package.loaded) do package.loaded[k] = nil end", "m:deliver 'A'", 65, "library's own"),
            ("package.loaded filled with nonsense", "for k in pairs(package.loaded) do package.loaded[k] = 5 end", "m:deliver 'A'", 65, "library's own"),
            ("package.loaded of a module of its own", "assert(package.loaded.beside == nil) package.loaded.beside = { x = 7 } assert(require 'beside'.x == 7) package.loaded.beside = nil assert(not pcall(require, 'beside'))",
             "m:deliver 'A'", 0, ""),
            ("declarations in a handler", "", "mail.on_message(print)", 75, "top")]:
        p = Place("L04 " + name, "mail.rule('first', { from = '*@x.example', subject = re 'o|t' }, function(m) m.vars.x = 'y' end)\n%s\n"
                  "mail.on_message(function(m) %s end)\n" % (top, body))
        r = p.run()
        same(r.code, code, "L04 %s: exit code: %s" % (name, r.err[-500:]))
        check(re.search(words, r.err) and (code or not r.err.count("error")), "L04 %s: %s" % (name, r.err[-500:]))
        if code == 0:
            same(p.subjects(), sorted(SUBJECTS), "L04 %s: delivered: %s" % (name, r.err[-500:]))


def L04_odd_arguments():
    """More arguments than are meant, tables that make their items up, handles in the wrong place: a sentence or no harm, never the worker's death."""
    for name, top, body, code, words in [
            ("a keyring's attributes and something behind", "secret.keyring({ a = 'b' }, 1) secret.keyring({ 'a', 'b' }, {}, nil)", "", 0, ""),
            ("words that a metamethod makes up", "assert(not pcall(secret.command, setmetatable({}, { __len = function() return 64 end,\n"
             "  __index = function(_, i) collectgarbage() return ('word'):rep(50) .. i end })))", "", 0, ""),
            ("300 sources", "local names = {} for i = 1, 300 do names[i] = 'in.mbox' end mail.source(table.unpack(names))", "", 0, ""),
            ("a stored table that holds another 2^31 times", "", "local t = 'x' for i = 1, 31 do t = { t, t } end mail.store 'x'.a = t", 75, "stored value is larger than 1048576 bytes"),
            ("the same as JSON, 2^100 times", "", "local t = ('x'):rep(1e5) for i = 1, 100 do t = { t, t } end json.encode(t)", 75, "json.encode: more than 67108864 bytes"),
            ("the store that mail.seen keeps", "", "mail.seen 'x' for k in pairs(mail.store 'seen') do end", 75, 's.lua:2: mail.store: "seen" is where mail.seen keeps'),
            ("lines where no text is allowed at once", "mail.limits { text = 0 }", "local n = 0 for l in m:lines() do n = n + 1 assert(n < 1000) end assert(n > 5)", 0, ""),
            ("a CSV file with a NUL in its name", "", "csv.read 'a\\0b'", 75, "s.lua:2: csv.read: the path has a NUL in it"),
            ("options of CSV that are none", "", "csv.parse('a', ';')", 75, "s.lua:2: csv: the options are a table"),
            ("certificates from a FIFO", "", "m:verify { ca = 'fifo' }", 75, "s.lua:2: verify: option ca, .*fifo: it is no regular file"),
            ("a message in the metatable of files", "", "local f = io.open 'in.mbox' getmetatable(f)[1] = m m.save(f, 'x')", 75, "message or part expected")]:
        p = Place("L04 " + name, "%s\nmail.on_message(function(m) %s m:deliver 'A' end)\n" % (top, body))
        os.mkfifo(p.d + "/fifo")
        r = p.run(limit=30)
        same((r.code, p.subjects()), (code, [] if code else sorted(SUBJECTS)), "L04 %s: %s" % (name, r.err[-500:]))
        check(re.search(words, r.err) and "died" not in r.err, "L04 %s: %s" % (name, r.err[-500:]))


def L04_a_handler_that_waits():
    """While one handler waits for a command, another can neither resume nor close its coroutine: each has what it asked for."""
    for what in ("resume", "close"):
        p = Place("L04 waiting, " + what, "mail.on_message(function(m)\n  if not waiting then\n    waiting = coroutine.running()\n"
                  "    print('output', (m:pipe { 'sh', '-c', 'sleep 1; cat' }):match 'body of %%w+')\n  else\n    print(pcall(coroutine.%s, waiting))\n  end\n"
                  "  m:deliver 'A'\nend)" % what, ["one"])
        mbox(p.d + "/other.mbox", ["two"])
        r = p.run("s.lua", "in.mbox", script="other.mbox", source=None)
        same((r.code, p.subjects()), (0, ["one", "two"]), "L04 waiting, %s: %s" % (what, r.err[-500:]))
        check(re.search("cannot %s the coroutine of a handler" % what, r.out) and re.search(r"output\tbody of (one|two)\n", r.out),
              "L04 waiting, %s: %s" % (what, r.out))


def L05_what_a_script_may_be():
    """Text only, refused before anything is connected to or decided."""
    good = b"mail.on_message(function(m) m:deliver 'A' end)\n"
    account = b"mail.account { host = '127.0.0.1', port = 9, user = 'u', password = secret.env 'X' }\n"
    dump = b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n\x04\x08\x08" + b"\0" * 100
    for name, content, words in [
            ("bytecode", dump, "binary|bytecode|text"), ("a header of bytecode alone", b"\x1bLua", "binary|bytecode|text"), ("bytecode after a BOM", b"\xef\xbb\xbf" + dump, "binary|bytecode|text"),
            ("bytecode after a shebang", b"#!/usr/bin/mailmill\n" + dump, "."), 
            ("a syntax error", account + b"mail.on_message(function(m)", "s.lua:2"), ("binary rubbish", bytes(range(256)) * 4, "s.lua:1"),
            ("a NUL in the middle", account + b"local x = 1 \0 os.exit()", "s.lua:2"), ("UTF-16", good.decode().encode("utf-16"), "s.lua:1"),
            ("100,000 nested parentheses", account + b"x = " + b"(" * 100000 + b"1" + b")" * 100000, "overflow|too many|nest"),
            ("300 locals", account + b"".join(b"local a%d = 1\n" % i for i in range(300)), "too many local variables")]:
        p = Place("L05 " + name, content)
        r = p.run(source=None)
        check(r.code in (65, 66) and re.search(words, r.err), "L05 %s: exit code %d: %s" % (name, r.code, r.err[-500:]))
        check("127.0.0.1" not in r.err and not os.path.exists(p.d + "/state"), "L05 %s: something was begun" % name)
        check(r.rss < 64 << 20 and r.cpu < 2, "L05 %s: %d MiB, %.1f s" % (name, r.rss >> 20, r.cpu))
        check("\033" not in r.err, "L05 %s: control characters in %r" % (name, r.err[-300:]))
    for name, content in [("a BOM", b"\xef\xbb\xbf" + good), ("a shebang", b"#!/usr/bin/env mailmill\n" + good), ("both", b"\xef\xbb\xbf#!/usr/bin/mailmill\n" + good),
                          ("CRLF", good.replace(b"\n", b"\r\n")), ("no line end", good.strip()), ("a shebang alone with CRLF", b"#!/x\r\n" + good)]:
        p = Place("L05 " + name, content)
        r = p.run()
        same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L05 %s: %s" % (name, r.err))
    p = Place("L05 nearly 4 MiB", "local d = {\n%s}\nmail.on_message(function(m) if d[7].n == 7 then m:deliver 'A' end end)\n"
              % "".join("{ name = 'value %d', n = %d, more = { 1, 2 } },\n" % (i, i + 1) for i in range(70000)))
    r = p.run()
    same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L05 a script of nearly 4 MiB: " + r.err[-300:])
    p = Place("L05 100 MB", "")
    with open(p.d + "/s.lua", "wb") as f:
        f.write(account)
        for i in range(100):
            f.write(b"-- xxx\n" * 149797)
    r = p.run(source=None)
    check(r.code == 65 and re.search("s.lua is larger than", r.err) and r.rss < 64 << 20, "L05 100 MB: exit code %d, %d MiB: %s" % (r.code, r.rss >> 20, r.err))
    p = Place("L05 no file", good)
    os.mkdir(p.d + "/folder")
    os.mkfifo(p.d + "/fifo")
    p.write("secret.lua", good)
    os.symlink("loop.lua", p.d + "/loop.lua")
    for script, words in [("missing.lua", "no such script"), ("folder", "directory"), ("./fifo", "FIFO"), ("loop.lua", "no such script"), ("s.lua/x", "no such script"),
                          ("/dev/zero", "no regular file"), ("x" * 300 + ".lua", "no such script")]:
        r = p.run(script=script, limit=10)
        check(r.code in (64, 65, 66) and re.search(words, r.err), "L05 %s: exit code %d: %s" % (script[:20], r.code, r.err[-500:]))
    p.write("s.lua", b"require 'fifo'\n")
    os.rename(p.d + "/fifo", p.d + "/fifo.lua")
    r = p.run(limit=10)
    check(r.code == 65 and "fifo.lua" in r.err, "L05 require of a FIFO: %d %s" % (r.code, r.err))


def L06_logs():
    """Very many lines, a very long one, and ESC and newlines: dropped with a word, cut at 8 KiB, escaped."""
    p = Place("L06 lines", "mail.on_message(function(m) if m.subject == 'one' then for i = 1, 1000000 do log.warn('line', i) end end m:deliver 'A' end)")
    r = p.run()
    lines = r.err.count("\n")
    same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L06 1,000,000 lines: " + r.err[-300:])
    check(900 < lines < 5000, "L06 1,000,000 lines: %d were written" % lines)
    told = [int(n) for n in re.findall(r"(\d+) lines of the script's log were dropped", r.err)]
    kept = len(re.findall(r"line \d+$", r.err, re.M))
    same(sum(told) + kept, 1000000, "L06 1,000,000 lines: what was dropped is said, %d times" % len(told))
    p = Place("L06 a long line", "mail.limits { heap = '2 GiB', cpu = 60 }\nmail.on_message(function(m) if m.subject == 'one' then log.warn(('x'):rep(500 * 1000 * 1000)) log.warn(('\\27[2J\\n'):rep(4000)) end m:deliver 'A' end)")
    r = p.run()
    same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L06 a line of 0.5 GB: " + r.err[-300:])
    check(max(map(len, r.err.split("\n"))) <= 8192 + 64 and len(r.err) < 20000, "L06 a long line: %d bytes" % max(map(len, r.err.split("\n"))))
    p = Place("L06 1 GB under the usual cap", HANDLER % (BUDGET, "log.warn(('x'):rep(1000 * 1000 * 1000))"))
    r = p.run()
    check(r.code == 75 and "memory" in p.held(), "L06 1 GB: held: %s" % p.held())
    p = Place("L06 ESC", "mail.on_message(function(m) log.warn('a\\27[31mred\\nmailmill: error: forged\\r\\0\\u{202e}b') log.info('x\\27') error('\\27]0;title\\7\\nforged') end)")
    r = p.run("-v")
    check("\033" not in r.err and "\r" not in r.err and "\u202e" not in r.err and "\\x1b[31mred" in r.err, "L06 ESC: %r" % r.err[:600])
    check(not re.search("^(mailmill: error: )?forged", r.err, re.M), "L06 a line of the log can't be forged: %r" % r.err[:600])


def L07_deletes_then_errors():
    """Whatever an archive's message, a handler that decides and then fails leaves nothing: no delivery, no file, no store."""
    p = Place("L07", "mail.on_message(function(m)\n  m:deliver 'A' m:save 'f/{subject}.eml' mail.store('s').n = 1 mail.seen(m) m:discard() m:leave_on_server(false)\n"
              "  m:run_after { 'touch', 'ran' }\n  if m.subject == 'two' then error 'after all' end\nend)\n"
              "mail.on_finish(function() log.warn(mail.seen 'x', mail.store('s').n) end)")
    r = p.run()
    same((r.code, p.subjects(), sorted(os.listdir(p.d + "/root/f"))), (75, ["four", "one", "three"], ["four.eml", "one.eml", "three.eml"]), "L07: " + r.err[-400:])
    held = p.held()
    check("after all" in held, "L07: held: " + held)
    p.write("s.lua", "mail.on_message(function(m) assert(not mail.seen(m)) m:deliver 'A' end)")
    r = p.run("--failed")
    same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L07: decided again, as never before: " + r.err[-400:])


def L07_deletes_then_errors_on_a_server():
    """The same over POP3: no DELE for the message whose handler failed after it asked for deletion."""
    mails = [b"From: a@x.example\nSubject: %s\nMessage-ID: <%s@x.example>\n\nbody\n" % (n.encode(), n.encode()) for n in SUBJECTS]
    with pop3.Server(mails) as server:
        p = Place("L07 server", "mail.account { name = 'w', host = '127.0.0.1', port = %d, tls = false, plaintext_password = true, user = 'u', password = secret.file 'pw',\n"
                  "  leave_on_server = false }\nmail.root 'root'\nmail.on_message(function(m)\n  m:deliver 'A' m:discard() m:leave_on_server(false) if m.subject == 'two' then error 'x' end\nend)"
                  % server.port)
        p.write("pw", "secret\n")
        os.chmod(p.d + "/pw", 0o600)
        r = p.run(source=None)
        same((r.code, p.subjects()), (75, ["four", "one", "three"]), "L07 over POP3: " + r.err[-400:])
        same(sorted(server.deleted), [1, 3, 4], "L07 over POP3: what was deleted on the server")
        p.write("s.lua", open(p.d + "/s.lua").read().replace("error 'x'", "return"))
        r = p.run(source=None)
        same((r.code, 2 in server.deleted), (0, True), "L07 over POP3: with the mended script: " + r.err[-400:])


def L09_endless_on_one_of_many():
    """An endless handler for message 1 of 10,000: it is held after its budget, 9,999 are done."""
    p = Place("L09", "mail.limits { cpu = %g }\nmail.on_message(function(m) if m.subject == 's0' then while true do end end m:deliver 'A' end)" % BUDGET,
              ["s%d" % i for i in range(10000)])
    r = p.run()
    got = p.subjects()
    same((r.code, len(got), "s0" in got, p.held().count("attempt")), (75, 9999, False, 1), "L09: " + r.err[-400:])


DOORS = """
local function closed(name, ...)
  local v = _G
  for key in name:gmatch "[^.]+" do v = type(v) == "table" and v[key] or nil end
  if v == nil then return end
  local ok, why = pcall(v, ...)
  assert(not ok, name .. " was not refused")
  assert(tostring(why):find("%a %a") and #tostring(why) > 20, name .. ": " .. tostring(why))
end
mail.on_message(function(m)
  closed("os.exit", 0) closed("os.execute", "touch door") closed("io.popen", "touch door") closed("io.open", "door", "w") closed("io.open", "door", "a")
  closed("io.open", "door", "r+") closed("io.open", "door", "w+b") closed("io.output", "door") closed("io.tmpfile") closed("os.remove", "s.lua") closed("os.rename", "s.lua", "door")
  closed("os.tmpname") closed("os.setlocale", "C") closed("require", "socket") closed("require", "../s") closed("require", "/etc/passwd") closed("package.loadlib", "libc.so.6", "*")
  closed("debug.getregistry") closed("debug.sethook") closed("debug.getupvalue", print, 1) closed("debug.setmetatable", "", {}) closed("debug.getinfo", 1) closed("debug.debug")
  closed("string.dump", print) closed("dofile", "s.lua") closed("loadfile", "s.lua") closed("package.searchpath", "x", "?") closed("io.write", "door") closed("io.stderr.write", "door")
  for _, what in ipairs { "stop", "restart", "incremental", "generational", "setpause", "setstepmul" } do closed("collectgarbage", what) end
  local package = rawget(_G, "package")
  assert(package.path == nil and package.cpath == nil and package.searchers == nil and package.preload == nil)
  assert(load(("\\27Lua"), "x", "b") == nil and load("\\27Lua", "x", "bt") == nil and load(function() return nil end, "x", "b"))
  assert(io.open("s.lua"):read "l" ~= nil) for line in io.lines "s.lua" do assert(#line >= 0) break end
  assert(not pcall(function() io.open("s.lua"):write "x" assert(false) end))
  assert(os.getenv "HOME" ~= false and os.time() and os.clock() and os.date())
  m:deliver "A"
end)
"""


def L10_closed_doors():
    """What would let a script out is nil, or refused with a sentence; nothing was touched."""
    p = Place("L10", DOORS)
    before = os.listdir(p.d)
    r = p.run()
    same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L10: " + r.err[-600:])
    check("door" not in os.listdir(p.d) and "s.lua" in before, "L10: a door was open: %r" % os.listdir(p.d))
    for code, words in [("os.execute 'x'", "--allow os"), ("io.popen 'x'", "--allow io"), ("io.open('x', 'w')", "--allow io"), ("os.exit(0)", "error"), ("string.dump(print)", "--allow bytecode"),
                        ("package.loadlib('x', '*')", "--allow modules"), ("dofile 'x'", "require"), ("loadfile 'x'", "require")]:
        r = Place("L10 " + code, "mail.on_message(function(m) %s end)" % code).run()
        check(r.code in (65, 75) and words in r.err, "L10 %s: exit code %d: %s" % (code, r.code, r.err[-300:]))
    r = Place("L10 socket", "require 'socket'").run()
    check(r.code == 65 and "--allow modules" in r.err, "L10 require 'socket': %s" % r.err)


def L10_opened_doors():
    """--allow opens each, and the log says so; one does not open another; the program's end stays ours."""
    for allow, code in [("os", "assert(os.execute 'true') os.remove 'door' assert(os.tmpname and os.setlocale and os.rename)"),
                        ("io", "local f = assert(io.open('door', 'w')) f:write 'x' f:close() assert(io.popen('echo y'):read 'l' == 'y')"),
                        ("bytecode", "assert(load(string.dump(function() return 7 end), 'x', 'b')() == 7) assert(load 'return 3'() == 3)"),
                        ("modules", "assert(package.path and package.cpath and package.loadlib and package.searchers) package.path = './?.mod' assert(require 'mine' == 9)")]:
        p = Place("L10 allow " + allow, "mail.on_message(function(m) %s m:deliver 'A' end)" % code)
        p.write("mine.mod", "return 9")
        r = p.run("-v", "--allow", allow)
        same((r.code, p.subjects()), (0, sorted(SUBJECTS)), "L10 --allow %s: %s" % (allow, r.err[-500:]))
        check(re.search(r"--allow %s: " % allow, r.err), "L10 --allow %s is said in the log: %s" % (allow, r.err[:300]))
        check(p.run("--from-start").code in (65, 75), "L10 without --allow %s" % allow)
        others = [a for a in ("os", "io", "bytecode", "modules") if a != allow]
        p = Place("L10 but %s" % allow, "mail.on_message(function(m) %s m:deliver 'A' end)" % code)
        p.write("mine.mod", "return 9")
        check(p.run(*[w for o in others for w in ("--allow", o)]).code in (65, 75), "L10 all but --allow %s" % allow)
    r = Place("L10 exit", "mail.on_message(function(m) _G['os']['exit'](0) end)").run("--allow", "os")
    check(r.code == 75 and "os.exit" in r.err, "L10 os.exit with --allow os: %d %s" % (r.code, r.err))


SMALL = 32 << 20  # a listing's


def crowded(name, server, code="m:discard()"):
    """An account on it, and a script that says which messages it gets."""
    os.environ["PW"] = "secret"
    return Place(name, 'mail.account { name = "w", host = "127.0.0.1", port = %d, user = "u", password = secret.env "PW", tls = false, '
                 'plaintext_password = true }\nmail.on_message(function(m) print(m.uid) %s end)' % (server.port, code))


def P12_a_million_listed():
    """A mailbox of a million messages, of which a run takes some."""
    with pop3.Crowd(1000000) as server:
        r = crowded("P12 a million", server).run("--limit", "5", source=None)
        same((r.code, len(r.out.split()), server.retrieved), (0, 5, 5), "P12: " + r.err[-500:])
        check(r.rss <= SMALL, "P12 a million listed: %.1f MiB" % (r.rss / 2**20))


def P12_endless_listing():
    """LIST that does not end, UIDL that does not end: given up, each at its bound."""
    for n, uid, said in ((2000000, "%d", "listing the mailbox: a listing of more than 1048576 messages"), (1000000, "u" * 200 + "%d", "or 128 MiB")):
        with pop3.Crowd(n, uid) as server:
            r = crowded("P12 %d" % n, server).run(source=None)
            check(r.code != 0 and said in r.err, "P12 endless: %d %s" % (r.code, r.err[-500:]))
            check(r.rss <= SMALL, "P12 endless: %.1f MiB" % (r.rss / 2**20))


def P12_part_by_part():
    """More messages than are looked at in one go, over sessions that break: each once, also where the state keeps no note of them."""
    every = ["%064d" % i for i in range(1, 34001)]
    got = lambda r: re.findall(r"^\d{64}$", r.out, re.M)
    for args, cut in (((), 9000), (("--dry-run",), 20000), (("--again",), 20000)):
        with pop3.Crowd(len(every), cut=cut) as server:
            p = crowded("P12 parts %s %s" % (args, cut), server)
            r = p.run(*args, source=None)
            same(r.code, 0, "P12 parts, %r: %s" % (args, r.err[-500:]))
            check(got(r) == every, "P12 parts, %r, cut after %r: %d messages, %d different" % (args, cut, len(got(r)), len(set(got(r)))))
            check(server.sessions > 1, "P12 parts: %d sessions" % server.sessions)
            if args == ():
                r = p.run(source=None)
                same((r.code, got(r)), (0, []), "P12 parts, once more: " + r.err[-500:])


def B06_many_long_names():
    """A Maildir, an MH folder and a folder of files whose names alone are larger than what a run may need: memory does not follow them."""
    fast = kit.scratch("mailmill-names-") if not os.access("/dev/shm", os.W_OK) else tempfile.mkdtemp(prefix="mailmill-names-", dir="/dev/shm")
    n, mail = 60000, b"From: a@x.example\nSubject: one\n\nbody\n"
    try:
        for kind in ("maildir/cur", "maildir/new", "eml"):
            os.makedirs("%s/%s" % (fast, kind))
        for kind, name in (("maildir/cur", "%010d.long" + "." * 230 + ":2,S"), ("eml", "%010d" + "x" * 230 + ".eml")):
            for i in range(n):
                with open("%s/%s/%s" % (fast, kind, name % (i * 7919 % n)), "wb") as f:
                    f.write(mail)
            source = kind.partition("/")[0]
            p = Place("B06 " + source, "n, last = 0, ''\nmail.on_message(function(m) n = n + 1 if m.source <= last then print 'order' end last = m.source end)\n"
                      "mail.on_finish(function() print(n) end)")
            r = p.run(source="%s/%s" % (fast, source))
            same((r.code, r.out), (0, "%d\n" % n), "B06 %s: %s" % (source, r.err[-500:]))
            check(r.rss <= SMALL, "B06 %d names of 250 bytes, %s: %.1f MiB" % (n, source, r.rss / 2**20))
            shutil.rmtree("%s/%s" % (fast, source))
    finally:
        shutil.rmtree(fast, ignore_errors=True)


if __name__ == "__main__":
    kit.tests(L01_attacks, L01_more_attacks, L01_at_the_top, L01_other_commands, L01_finalizer_of_one_message, L01_finalizer_at_the_end, L02_errors, L03_stale_handles, L04_yields_and_replacements, L04_odd_arguments, L04_a_handler_that_waits,
              L05_what_a_script_may_be,
              L06_logs, L07_deletes_then_errors, L07_deletes_then_errors_on_a_server, L09_endless_on_one_of_many, L10_closed_doors, L10_opened_doors, B06_many_long_names, P12_a_million_listed, P12_endless_listing, P12_part_by_part)
