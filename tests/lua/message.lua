local T = {}

local mail1 = [[
Received: from a by b; Mon, 20 Nov 2023 10:00:05 +0000
From: =?utf-8?q?M=C3=BCller?= <Boss+lead@EXAMPLE.org>
To: a@x.org, "B, b" <b@Y.org>
Cc: c@z.org
Subject: =?utf-8?b?R3LDvMOfZQ==?= to you
Date: Mon, 20 Nov 2023 11:00:00 +0100
Message-ID: <one@example.org>
References: <r1@x> <r2@x>
In-Reply-To: <r2@x>
List-Id: My list <News.Example.ORG>
X-Two: first
X-Two: second
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=bb

--bb
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe
second line

--bb
Content-Type: application/pdf; name="inv.pdf"
Content-Disposition: attachment; filename="inv.pdf"
Content-Transfer-Encoding: base64

JVBERi0xLjQKJcfsj6IK
--bb--
]]

function T.fields()
  local m = message(mail1, { account = "work", uid = "u1", source = "work", flags = "FS", folder = "" })
  check("subject", m.subject, "Grüße to you")
  check("from", m.from, "Boss+lead@example.org")
  check("from_name", m.from_name, "Müller")
  check("user", m.from.user, "Boss")
  check("detail", m.from.detail, "lead")
  check("domain", m.from.domain, "example.org")
  check("sender", m.sender, nil)
  check("reply_to", m.reply_to, m.from)
  check("to", m.to, { "a@x.org", "b@y.org" })
  check("cc", m.cc, { "c@z.org" })
  check("bcc", #m.bcc, 0)
  check("date", m.date, 1700474400)
  check("received", m.received, 1700474405)
  check("size", m.size, #mail1)
  check("uid", m.uid, "u1")
  check("account", m.account, "work")
  check("source", m.source, "work")
  check("folder", m.folder, "")
  check("flags", m.flags, "FS")
  check("envelope_to", m.envelope_to, nil)
  check("message_id", m.message_id, "one@example.org")
  check("in_reply_to", m.in_reply_to, "r2@x")
  check("references", m.references, { "r1@x", "r2@x" })
  check("list_id", m.list_id, "news.example.org")
  check("text", m.text:find("Grüße\nsecond line", 1, true), 1)
  check("html", m.html, nil)
  check("raw", m.raw, mail1)
  check("sha256", #m.sha256, 64)
  check("tostring", tostring(m), "message 7 of work")
  check("the same list", m.to == m.to)
  check("table key", ({ ["Boss+lead@example.org"] = 5 })[m.from], 5)
end

function T.headers()
  local m = message(mail1)
  check("header", m:header "x-two", "first")
  check("headers", m:headers "X-Two", { "first", "second" })
  check("none", m:headers "X-None", {})
  check("absent", m:header "X-None", nil)
  check("default", m:header("X-None", "dflt"), "dflt")
  check("false default", m:header("X-None", false), false)
  fails(function() m:header() end, "string expected")
  fails(function() m:header "X:" end, "without the colon")
  local a = m:addresses "to"
  check("count", #a, 2)
  check("name", a[2].name, "B, b")
  check("addr", a[2].addr, "b@y.org")
  check("valid", a[2].valid)
  check("group", a[1].group, nil)
  check("detail", m:addresses "from"[1].detail, "lead")
  check("underscore", #m:addresses "reply_to", 0)
end

function T.vars()
  local m = message(mail1)
  m.vars.x = 5
  check("kept", m.vars.x, 5)
  m.vars = { y = 1 }
  check("set", m.vars.y, 1)
  fails(function() m.vars = 5 end, "m.vars is a table, not a number")
  fails(function() m.subject = "x" end, "m.subject can't be set")
end

function T.unknown()
  local m = message(mail1)
  fails(function() return m.subjekt end, "unknown field 'subjekt' of a message (did you mean 'subject'?)")
  fails(function() return m:atachments() end, "unknown field 'atachments' of a message (did you mean 'attachments'?)")
  fails(function() return m.zzzzzzzzz end, "unknown field 'zzzzzzzzz' of a message")
  fails(function() return m[1] end, "a message has no field [1]")
  fails(function() return m:parts()[1].nam end, "unknown field 'nam' of a part (did you mean 'name'?)")
  fails(function() return m.from.domian end, "unknown field 'domian' of a string (did you mean 'domain'?)")
  fails(function() return m["a\27b"] end, "\\x1b")
end

function T.parts()
  local m = message(mail1)
  local parts = m:parts()
  check("count", #parts, 2)
  check("same box", parts[1] == m:parts()[1])
  local p = parts[2]
  check("path", p.path, "2")
  check("type", p.type, "application/pdf")
  check("detected", p.detected, "application/pdf")
  check("name", p.name, "inv.pdf")
  check("charset", p.charset, nil)
  check("disposition", p.disposition, "attachment")
  check("id", p.id, nil)
  check("size", p.size, 15)
  check("encoded_size", p.encoded_size > 19)
  check("content", p.content, "%PDF-1.4\n%\xc7\xec\x8f\xa2\n")
  check("attached", p.attached)
  check("reason", #p.reason > 0)
  check("encrypted", p.encrypted, false)
  check("message", p.message == m)
  check("sha256", #p.sha256, 64)
  check("text", parts[1].text:sub(1, 7), "Grüße")
  check("charset", parts[1].charset, "iso-8859-1")
  check("no name", parts[1].name, nil)
  check("children", #p:parts(), 0)
  check("tostring", tostring(p), "part 2 (inv.pdf)")
  fails(function() p.name = "x" end, "part.name can't be set")
end

function T.attachments()
  local m = message(mail1)
  check("all", #m:attachments(), 1)
  local n = 0
  for part in m:attachments "*.pdf" do n = n + 1; check("name", part.name, "inv.pdf") end
  check("glob", n, 1)
  check("caseless", #m:attachments "*.PDF", 1)
  check("other", #m:attachments "*.doc", 0)
  check("type", #m:attachments "application/*", 1)
  check("one of", #m:attachments { "*.doc", "*.pdf" }, 1)
  check("table", #m:attachments { name = "inv*", smaller = "1 kB" }, 1)
  check("larger", #m:attachments { name = "inv*", larger = "1 kB" }, 0)
  check("function", #m:attachments(function(p) return p.size == 15 end), 1)
  check("none", #m:attachments(mail.none { "*.pdf" }), 0)
  check("re", #m:attachments(re "^inv"), 1)
  check("parts", #m:parts "text/*", 1)
  check("unpack false", #m:attachments { unpack = false }, 1)
  check("unpack nothing", #m:attachments { unpack = true }, 1)
  fails(function() m:attachments { unpack = "yes" } end, "unpack is true or false")
  fails(function() m:attachments { { unpack = true } } end, "not in a table within it")
  fails(function() m:parts { unpack = true } end, "unpack is for m:attachments and part:parts")
  fails(function() m:attachments { nmae = "x" } end, "unknown key 'nmae' in an attachment test (did you mean 'name'?)")
  fails(function() m:attachments(5) end, "an attachment filter is")
end

-- Mail that can be read in two ways: one reading counts, m.defects says so, and the other is to be had.
function T.M04_two_boundaries()
  local m = message "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--a\n\nfor a\n--a--\n--b\n\nfor b\n--b--\n"
  check("chosen", m:parts()[1].text, "for a")
  check("defect", m.defects["ambiguous.boundary"])
  check("defects as JSON", json.encode { m.defects }, '[["' .. table.concat(m.defects, '","') .. '"]]')
  check("leaves", #m.alternative:parts(), 1)
  check("other", m.alternative:parts()[1].text, "for b")
  check("filter", #m.alternative:parts "image/*", 0)
  check("same box", m.alternative == m.alternative)
  check("no third", m.alternative.alternative, nil)
  check("bytes", m.alternative.sha256, m.sha256)
  check("of one reading", message(mail1).alternative, nil)
  local other = m.alternative:parts()[1]
  close(m)
  fails(function() return other.text end, "closed")
end

function T.M07_M08_two_encodings()
  local m = message 'Content-Transfer-Encoding: "base64"\n\neA=='
  check("raw", m:parts()[1].text, "eA==")
  check("decoded", m:parts()[1].alternative.text, "x")
  m = message "Content-Transfer-Encoding: base64\n\neA==eQ=="
  local part = m:parts()[1]
  check("both runs", part.content, "xy")
  check("the first", part.alternative.content, "x")
  check("size", part.alternative.size, 1)
  check("reader", part.alternative:reader():read(10), "x")
  check("of one reading", message("\nx"):parts()[1].alternative, nil)
end

function T.H11_names()
  local m = message "Content-Type: a/b; name=n.txt\nContent-Disposition: attachment; filename=f.exe\n\nx"
  check("chosen", m:parts()[1].name, "f.exe")
  check("all", m:parts()[1].names, { "f.exe", "n.txt" })
  check("defect", m.defects["ambiguous.name"])
  check("none", #message("\nx"):parts()[1].names, 0)
end

function T.readers()
  local m = message(mail1)
  local r = m:parts()[2]:reader()
  check("read", r:read(4), "%PDF")
  check("rest", #r:read(), 11)
  check("end", r:read(), nil)
  r:close()
  r:close()
  fails(function() r:read() end, "the reader is closed")
  fails(function() m:reader():read(0) end, "1 or more")
  local n, whole = 0, m:reader()
  while true do
    local s = whole:read(10)
    if not s then break end
    n = n + #s
  end
  check("whole", n, #mail1)
  do local c <close> = m:reader() r = c end
  fails(function() r:read() end, "the reader is closed")
end

function T.lines()
  local m, out = message(mail1), {}
  for line in m:parts()[1]:lines() do out[#out + 1] = line end
  check("first", out[1], "Grüße")
  check("second", out[2], "second line")
  local n = 0
  for line in m:lines() do n = n + 1; check("no line end", line:find "\n", nil) end
  check("lines", n, select(2, mail1:gsub("\n", "")))
  for line in m:lines() do if line:find "Subject" then break end end
  local long = message("Subject: x\n\n" .. ("y"):rep(200000) .. "\nz")
  local sizes = {}
  for line in long:lines() do sizes[#sizes + 1] = #line end
  check("pieces", sizes[3], 65536)
  check("last", sizes[#sizes], 1)
  local sum = 0
  for _, s in ipairs(sizes) do sum = sum + s end
  check("sum", sum, 10 + 200000 + 1)
  check("empty", (function() for _ in message("Subject: x\n"):lines() do n = n + 1 end return n end)() > 0)
end

function T.L03_closed()
  local m = message(mail1)
  local parts, to, r, lines = m:parts(), m.to, m:reader(), m:lines()
  r:read(3)
  local p, rec = parts[1], m:addresses "to"
  close(m)
  for what, f in pairs {
    field = function() return m.subject end,
    kept = function() return m.to end,
    unknown = function() return m.nonsense end,
    method = function() return m:parts() end,
    set = function() m.vars = {} end,
    part = function() return p.name end,
    part_method = function() return p:lines() end,
    part_message = function() return p.message end,
    reader = function() return r:read() end,
    lines = function() return lines() end,
  } do
    fails(f, "the message is closed")
  end
  check("tostring", tostring(m), "message (closed)")
  check("part", tostring(p), "part (its message is closed)")
  check("plain values stay", to[1], "a@x.org")
  check("records stay", rec[1].addr, "a@x.org")
  for part in parts do fails(function() return part.name end, "the message is closed") end
  r:close()
end

function T.empty_and_broken()
  for i, text in ipairs { "", "\n", "\n\n", "garbage", "From: \nTo:\nSubject:\nDate: no\n\n", "\0\0\0\n\n\0", "From: <<<>>>\nTo: ,,,;:\n\nx",
    "Content-Type: multipart/mixed; boundary=x\n\n--x\n\n--x--\n" } do
    local m = message(text)
    check("subject " .. i, m.subject, m.subject .. "")
    check("from", type(m.from), "string")
    check("domain", type(m.from.domain), "string")
    check("from_name", type(m.from_name), "string")
    check("reply_to", type(m.reply_to), "string")
    check("to", type(#m.to), "number")
    check("references", #m.references, 0)
    check("date", math.type(m.date), "integer")
    check("received", math.type(m.received), "integer")
    check("text", type(m.text), "string")
    check("flags", m.flags, "")
    check("folder", m.folder, "")
    check("defects", type(m.defects), "table")
    check("vars", type(m.vars), "table")
    check("account", m.account, nil)
    check("uid", m.uid, nil)
    check("uid of an archive", message("Subject: x\n\n", { source = "a.mbox", uid = "4711" }).uid, nil)
    for _, name in ipairs { "sender", "in_reply_to", "message_id", "list_id", "html", "envelope_to", "raw", "size", "source" } do
      check("never raises", (pcall(function() return m[name] end)))
    end
    for p in m:parts() do
      for _, name in ipairs { "path", "type", "detected", "charset", "disposition", "name", "id", "size", "encoded_size", "sha256", "text",
        "content", "attached", "reason", "encrypted" } do
        check("part " .. name, (pcall(function() return p[name] end)))
      end
    end
    check("attachments", type(m:attachments()), "table")
  end
end

function T.defects()
  local m = message "Subject: x\nDate: nonsense\n\nbody\n"
  check("date", m.date, 1700000000)
  local d = m.defects
  check("some", #d > 0)
  check("key", d[d[1]])
  check("not a defect", d["ambiguous.boundary"], nil)
  check("the same table", d == m.defects)
  local n = 0
  for name in d do n = n + 1; check("name", type(name), "string") end
  check("walked", n, #d)
  local big = message("Subject: x\n\n" .. ("y"):rep(100000))
  check("cut", #big.raw, 65536)
  check("flag", big.defects["limit.text"])
end

function T.nested_messages()
  local m = message [[
Subject: outer
Content-Type: message/rfc822

Subject: inner
Content-Type: multipart/mixed; boundary=q

--q

one
--q
Content-Type: image/png; name=a.png

two
--q--
]]
  check("leaves", #m:parts(), 2)
  check("path", m:parts()[2].name, "a.png")
end

function T.current_and_rule()
  local m = message(mail1)
  check("outside", get_rule(), "")
  set_rule "lost"
  set_current(m)
  check("none yet", get_rule(), "")
  set_rule "Invoices"
  check("set", get_rule(), "Invoices")
  local other = message(mail1)
  set_current(other)
  check("another's", get_rule(), "")
  set_current(m)
  check("again", get_rule(), "Invoices")
  set_rule(nil)
  check("over", get_rule(), "")
  set_current(nil)
end

function T.boxes_collected()
  local m = message(mail1)
  local p = m:parts()[2]
  m = nil
  collectgarbage()
  collectgarbage()
  check("alive", p.name, "inv.pdf")
  check("its message", p.message.subject, "Grüße to you")
  p.message:reader()
  collectgarbage()
end

return T
