-- The test language.
local T = {}

local function mail1(more)
  return message([[
From: "The Bank" <info@news.bank.example>
To: me+lead@x.org, you@y.org
Cc: third@z.org
Subject: URGENT: order 55 for Köln
Date: ]] .. os.date("!%a, %d %b %Y %H:%M:%S +0000", os.time() - 10 * 86400) .. "\n" .. (more or "") .. [[
X-Spam: yes
X-Empty:
List-Id: <list.example.org>
Content-Type: multipart/mixed; boundary=bb

--bb
Content-Type: text/plain

some words in the body
--bb
Content-Type: application/octet-stream; name="inv.pdf"
Content-Disposition: attachment; filename="inv.pdf"

%PDF-1.4 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
--bb--
]], { account = "work", source = "work", flags = "FS", uid = "17", envelope_to = "deep@x.org" })
end

local function holds(m, test) check(json.encode { n = 1 } and "holds", m:matches(test), true) end
local function hangs(m, test) check("does not hold", m:matches(test), false) end

function T.addresses()
  local m = mail1()
  holds(m, { from = "*@*.bank.example" })
  holds(m, { from = "INFO@*" })
  hangs(m, { from = "*@bank.example" })
  holds(m, { from = { "*@other.example", "*@news.bank.example" } })
  holds(m, { to = "*+lead@*" })
  holds(m, { to = "you@y.org" })
  hangs(m, { to = "third@z.org" })
  holds(m, { cc = "third@z.org" })
  holds(m, { recipient = "third@z.org" })
  holds(m, { recipient = "deep@x.org" })
  holds(m, { envelope_to = "deep@*" })
  holds(m, { bcc = false })
  hangs(m, { bcc = "*" })
  holds(m, { to = "*" })
  holds(m, { sender = false, reply_to = false })
  holds(m, { from = re "bank" })
  holds(m, { from = function(a) return a.domain == "news.bank.example" end })
  holds(m, { to = mail.none { "*@q.org", "*@r.org" } })
  hangs(m, { to = mail.none { "*@q.org", "*@y.org" } })
  fails(function() m:matches { from = "bank.example" } end, 'from: the address pattern "bank.example" has no @ (write "*@bank.example")')
  fails(function() m:matches { from = "*.bank.example" } end, 'write "*@*.bank.example"')
  fails(function() m:matches { to = { "a@b", "boss" } } end, 'write "boss@*"')
end

function T.sizes_that_are_none()
  local m = mail1()
  fails(function() m:matches { larger = -1 } end, "larger: a size is a number of bytes, 0 or more")
end

function T.texts()
  local m = mail1()
  holds(m, { subject = "*urgent*" })
  holds(m, { subject = "*KÖLN" })
  hangs(m, { subject = "urgent" })
  holds(m, { subject = re [[order\s+\d+]] })
  holds(m, { subject = { "*nothing*", re "order\\s+\\d+" } })
  hangs(m, { subject = false })
  holds(m, { subject = true })
  holds(m, { from_name = "the bank" })
  holds(m, { list_id = "list.example.org" })
  holds(m, { message_id = false, in_reply_to = false, references = false })
  holds(m, { account = "work", source = "w*", uid = "17", folder = false })
  holds(m, { text = "*words in*", body = re "body" })
  holds(m, { html = false })
  holds(m, { raw = "*X-Spam*" })
  local empty = message "Subject:\n\n"
  holds(empty, { subject = "" })
  holds(empty, { subject = false })
  hangs(empty, { subject = "*" })
  hangs(m, { subject = "" })
end

function T.headers()
  local m = mail1 "X-Multi: one\nX-Multi: two\n"
  holds(m, { header = { ["X-Spam"] = "yes" } })
  holds(m, { header = { ["x-spam"] = "YES", ["X-Multi"] = "two" } })
  holds(m, { header = { ["Auto-Submitted"] = false } })
  hangs(m, { header = { ["Auto-Submitted"] = "*" } })
  holds(m, { header = { ["X-Empty"] = "*" } })
  holds(m, { header = { ["X-Empty"] = "" } })
  hangs(m, { header = { ["X-Multi"] = mail.none { "two" } } })
  holds(m, { header = { ["Nothing"] = function(v) return v == nil end } })
  fails(function() m:matches { header = "X-Spam" } end, "a table of names and values is expected")
  fails(function() m:matches { header = { "X-Spam" } } end, "is no name")
  fails(function() m:matches { header = {} } end, "tests nothing")
end

function T.sizes()
  local m = mail1()
  holds(m, { larger = 100, smaller = "5 kB" })
  hangs(m, { larger = "1 MB" })
  hangs(m, { larger = m.size })
  hangs(m, { smaller = m.size })
  holds(m, { size = m.size })
  holds(m, { size = function(n) return n > 10 end })
  fails(function() m:matches { larger = "5 mbytes" } end, "larger: '5 mbytes' is no size")
end

function T.times()
  local m = mail1()
  local function day(ago, f) return os.date(f or "%Y-%m-%d", os.time() - ago * 86400) end
  holds(m, { newer = "30 days" })
  hangs(m, { newer = "5 days" })
  holds(m, { older = "5 days" })
  hangs(m, { older = "30 days" })
  holds(m, { newer = day(20), older = day(5) })
  holds(m, { date = day(10) })
  hangs(m, { date = day(12) })
  holds(m, { date = day(10, "%Y-%m") })
  holds(m, { date = day(10, "%Y") })
  holds(m, { date = { day(50), day(10) } })
  holds(m, { date = { from = day(12), to = day(10) } })
  hangs(m, { date = { from = day(9) } })
  holds(m, { date = { to = day(10) } })
  holds(m, { date = mail.none { day(9), day(11) } })
  holds(m, { newer = os.time() - 20 * 86400 })
  holds(m, { newer = "2001-02-03T04:05:06Z", older = "2200-01-01 10:00" })
  local utc = message "Date: Mon, 20 Nov 2023 23:59:59 +0000\n\n"
  holds(utc, { date = "2023-11-20Z" })
  hangs(utc, { date = "2023-11-21Z" })
  holds(utc, { date = "2023-11-20T23:59Z" })
  holds(utc, { date = "2023-11-20T23:59:59Z" })
  hangs(utc, { date = "2023-11-20T23:59:58Z" })
  holds(utc, { date = "2023-11Z" })
  for _, bad in ipairs { "2024-13", "2023-02-29", "2024-1-1", "soon", "20240101", "2024-01-01 25:00", "2024-01-01 10:60", "2024-01-01x", "" } do
    fails(function() m:matches { newer = bad } end, "is no time")
  end
  fails(function() m:matches { newer = 86400 } end, "is no time")
  fails(function() m:matches { date = "30 days" } end, "write newer =")
  fails(function() m:matches { date = { form = "2024" } } end, "has the keys from and to")
end

function T.flags_and_defects()
  local m = mail1()
  holds(m, { flags = "seen" })
  holds(m, { flags = "F" })
  hangs(m, { flags = "draft" })
  holds(m, { flags = { "draft", "flagged" } })
  hangs(m, { flags = false })
  holds(message("\n\n"), { flags = false })
  fails(function() m:matches { flags = "flaged" } end, "unknown flag \"flaged\" (did you mean 'flagged'?)")
  local bad = message "Date: never\n\nx"
  holds(bad, { defects = "*" })
  holds(bad, { defects = "*date*" })
end

function T.attachments()
  local m = mail1()
  holds(m, { attachment = "*.pdf" })
  holds(m, { attachment = "*" })
  holds(m, { attachment = true })
  hangs(m, { attachment = false })
  hangs(m, { attachment = "*.doc" })
  holds(m, { attachment = { "*.doc", "*.pdf" } })
  holds(m, { attachment = { name = "*.pdf", smaller = "20 kB" } })
  hangs(m, { attachment = { name = "*.pdf", larger = "20 kB" } })
  holds(m, { attachment = "application/pdf" })
  hangs(m, { attachment = "image/*" })
  holds(m, { part = "text/plain" })
  holds(m, { part = { type = "text/*", charset = "us-ascii" } })
  hangs(m, { part = "message/*" })
  holds(message "\nx", { attachment = false })
  fails(function() m:matches { attachment = { nam = "x" } } end, "unknown key 'nam' in an attachment test (did you mean 'name'?)")
end

function T.combined()
  local m = mail1()
  holds(m, {})
  holds(m, { { subject = "*urgent*" }, { from = "*@*" } })
  hangs(m, { { subject = "*urgent*" }, { from = "*@nowhere" } })
  holds(m, mail.any { { from = "*@nowhere" }, { subject = "*urgent*" } })
  holds(m, mail.any { from = "*@nowhere", subject = "*urgent*" })
  hangs(m, mail.any { from = "*@nowhere", subject = "*quiet*" })
  holds(m, mail.none { from = "*@nowhere", subject = "*quiet*" })
  hangs(m, mail.none { from = "*@nowhere", subject = "*urgent*" })
  holds(m, { mail.any { { from = "*@nowhere" }, mail.none { { subject = "quiet" } } }, larger = 10 })
  holds(m, function(x) return x.size > 3 end)
  hangs(m, function() end)
  holds(m, mail.any { function(x) return x.size > 3 end })
  m.vars.number = 7
  holds(m, { vars = { number = "7", other = false } })
end

function T.misuse()
  local m = mail1()
  fails(function() m:matches { form = "*@x" } end, "unknown key 'form' in a test (did you mean 'from'?)")
  fails(function() m:matches { attachmnet = "x" } end, "did you mean 'attachment'?")
  fails(function() m:matches "x" end, "a test is a table")
  fails(function() m:matches { "x" } end, "a test is a table")
  fails(function() m:matches(re "x") end, "a test is a table")
  fails(function() m:matches() end, "value expected")
  fails(function() m:matches { subject = {} } end, "an empty list matches nothing")
  fails(function() m:matches { subject = 5 } end, 'subject: a pattern is text: write "5" in quotes')
  fails(function() m:matches { subject = { larger = 5 } } end, "a list of patterns is expected")
  fails(function() m:matches { [true] = 5 } end, "unknown key [true]")
  fails(function() mail.any "x" end, "takes a table of alternatives")
  fails(function() mail.none {} end, "decides nothing")
  local _, e = pcall(function() m:matches { form = "x" } end)
  check("place", e:find "^tests/lua/tests.lua:%d+: unknown", 1)
end

function T.every_key_is_documented()
  local match = require "mail.match"
  local f = assert(io.open "lua/mail/match.lua")
  local text = f:read "a"
  f:close()
  local at = text:find("-> attachment test", 1, true)
  for _, key in ipairs(match.message_keys) do check(key, text:sub(1, at):find("-- option " .. key .. ":", 1, true) ~= nil) end
  for _, key in ipairs(match.part_keys) do check(key, text:sub(at):find("-- option " .. key .. ":", 1, true) ~= nil) end
end

return T
