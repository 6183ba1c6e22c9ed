-- The test language of mail.rule, m:matches, m:attachments and m:parts: a test is compiled into a function of a message (or of a part) that answers
-- true or false. What is wrong with a test is said when it is compiled, with the place in the script that wrote it.

local prim = require "mail.primitives"
local glob, nearest, blame, kind = prim.glob, prim.nearest, prim.blame, prim.kind

local match = {}

local function fail(text, ...)
  blame(text:format(...))
end

local function quote(value)
  return type(value) == "string" and '"' .. value .. '"' or tostring(value)
end

-- mail.any and mail.none: alternatives, understood where they stand: as tests, as filters or as values.
local Group = { __name = "test", __metatable = false }
local groups = setmetatable({}, { __mode = "k" })

local function group(name, alternatives, negate)
  if type(alternatives) ~= "table" then
    fail("mail.%s takes a table of alternatives: mail.%s { …, … }", name, name)
  end
  if next(alternatives) == nil then
    fail("mail.%s without alternatives decides nothing", name)
  end
  local made = setmetatable({ name = name, alternatives = alternatives, negate = negate }, Group)
  groups[made] = true
  return made
end

local function is_group(value)
  return groups[value] == true
end

--- mail.any { test, … } -> test
-- Passes when at least one of the tests does. Keys count as tests of their own: mail.any { from = "*@a.example", subject = "*order*" }.
-- As a value ({ subject = mail.any { "*a*", "*b*" } }) it is one of.
function match.any(alternatives)
  return group("any", alternatives, false)
end

--- mail.none { test, … } -> test
-- Passes when none of the tests does; written as mail.any is.
function match.none(alternatives)
  return group("none", alternatives, true)
end

local function one_of(functions, negate)
  return function(x)
    for i = 1, #functions do
      if functions[i](x) then return not negate end
    end
    return negate
  end
end

local function all_of(functions)
  if #functions == 1 then return functions[1] end
  return function(x)
    for i = 1, #functions do
      if not functions[i](x) then return false end
    end
    return true
  end
end

-- The alternatives of a group: items as they are, keys as one-key tests.
local function compile_group(g, compile)
  local functions = {}
  for _, item in ipairs(g.alternatives) do functions[#functions + 1] = compile(item) end
  for key, value in pairs(g.alternatives) do
    if math.type(key) ~= "integer" then functions[#functions + 1] = compile { [key] = value } end
  end
  return one_of(functions, g.negate)
end

-- Values. A key's getter answers a list of the texts to look at, empty when there are none; a value is compiled into a function of that list.

local compile_value

local function value_list(items, where, check)
  local functions = {}
  for key in pairs(items) do
    if math.type(key) ~= "integer" then
      fail("%s: a list of patterns is expected, not a table with the key %s", where, quote(key))
    end
  end
  for i = 1, #items do functions[i] = compile_value(items[i], where, check) end
  if #functions == 0 then fail("%s: an empty list matches nothing", where) end
  return functions
end

local function any_text(holds)
  return function(texts)
    for i = 1, #texts do
      if holds(texts[i]) then return true end
    end
    return false
  end
end

local function compile_text(pattern, where, check)
  if pattern == "*" then
    return function(texts) return #texts > 0 end
  end
  pattern = check and check(pattern, where) or pattern
  local found = any_text(function(text) return glob(pattern, text) end)
  if pattern ~= "" then return found end
  return function(texts) return #texts == 0 or found(texts) end
end

function compile_value(value, where, check)
  local sort = type(value)
  if sort == "string" then return compile_text(value, where, check) end
  if value == true then return compile_text("*", where) end
  if value == false then
    return function(texts) return #texts == 0 end
  end
  if kind(value) == "re" then
    return any_text(function(text) return value:test(text) end)
  end
  if sort == "function" then
    local holds = any_text(value)
    return function(texts)
      if #texts == 0 then return value(nil) and true or false end
      return holds(texts)
    end
  end
  if is_group(value) then return one_of(value_list(value.alternatives, where, check), value.negate) end
  if sort == "table" then return one_of(value_list(value, where, check), false) end
  if sort == "number" then fail("%s: a pattern is text: write \"%s\" in quotes", where, value) end
  fail("%s: a pattern (text, re, list, true, false, function) is expected, not a %s", where, sort)
end

local function check_address(pattern, where)
  if pattern:find("@", 1, true) then return pattern end
  local guess = pattern:find(".", 1, true) and "*@" .. pattern:gsub("^%*?@?", "", 1):gsub("^%.", "*.") or pattern .. "@*"
  fail('%s: the address pattern %s has no @ (write "%s")', where, quote(pattern), guess)
end

local flag_letters = {
  draft = "D", flagged = "F", passed = "P", forwarded = "P", replied = "R", answered = "R", seen = "S", read = "S",
  trashed = "T", deleted = "T",
}

local function check_flag(pattern, where)
  local letter = flag_letters[pattern:lower()] or pattern:match("^%a$")
  if letter then return letter end
  local names = {}
  for name in pairs(flag_letters) do names[#names + 1] = name end
  local near = nearest(pattern, names)
  fail("%s: unknown flag %s%s", where, quote(pattern), near and (" (did you mean '%s'?)"):format(near) or ' (write one letter, or "seen", "flagged" …)')
end

-- Sizes

local function compile_size(value, where)
  local ok, bytes = pcall(prim.size, value)
  if not ok then fail("%s: %s", where, (bytes:gsub("^.-:%d+: ", ""):gsub("^bad argument.-%((.*)%)$", "%1"))) end
  return bytes
end

-- Times. A date is a range of seconds, [from, to): a day, a month, a year, a minute.

local function days_from_civil(y, m, d)
  y = m <= 2 and y - 1 or y
  local era = y // 400
  local yoe = y - era * 400
  local doy = (153 * (m + (m > 2 and -3 or 9)) + 2) // 5 + d - 1
  return era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
end

local function instant(utc, y, mo, d, h, mi, s)
  if utc then return days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + s end
  return os.time { year = y, month = mo, day = d, hour = h, min = mi, sec = s, isdst = nil }
end

local function days_in(y, m)
  local next_y, next_m = m == 12 and y + 1 or y, m == 12 and 1 or m + 1
  return days_from_civil(next_y, next_m, 1) - days_from_civil(y, m, 1)
end

local function clock_range(utc, y, mo, d, rest)
  local h, mi, s = rest:match "^[T ](%d%d):(%d%d):?(%d?%d?)$"
  if not h or (s ~= "" and #s ~= 2) or (s == "" and rest:sub(-1) == ":") then return nil end
  h, mi = tonumber(h), tonumber(mi)
  if h > 23 or mi > 59 or (s ~= "" and tonumber(s) > 60) then return nil end
  local from = instant(utc, y, mo, d, h, mi, tonumber(s) or 0)
  return from, from + (s == "" and 60 or 1)
end

local function parse_date(text)
  local bare, zone = text:match "^(.-)(Z?)$"
  local utc = zone == "Z"
  local y, mo, d, rest = bare:match "^(%d%d%d%d)%-?(%d?%d?)%-?(%d?%d?)(.*)$"
  if not y or not (bare:match "^%d%d%d%d$" or bare:match "^%d%d%d%d%-%d%d$" or bare:match "^%d%d%d%d%-%d%d%-%d%d") then return nil end
  y, mo, d = tonumber(y), tonumber(mo), tonumber(d)
  if not mo then return instant(utc, y, 1, 1, 0, 0, 0), instant(utc, y + 1, 1, 1, 0, 0, 0) end
  if mo < 1 or mo > 12 then return nil end
  if not d then
    local last = mo == 12
    return instant(utc, y, mo, 1, 0, 0, 0), instant(utc, last and y + 1 or y, last and 1 or mo + 1, 1, 0, 0, 0)
  end
  if d < 1 or d > days_in(y, mo) then return nil end
  if rest ~= "" then return clock_range(utc, y, mo, d, rest) end
  local from = instant(utc, y, mo, d, 0, 0, 0)
  if utc then return from, from + 86400 end
  return from, os.time { year = y, month = mo, day = d + 1, hour = 0 }
end

local date_help = 'write "30 days", a date such as "2026-11-23", "2026-11" or "2026", or a time as m.date has it'

-- A function that answers the range: spans count back from the time of asking.
local function compile_time(value, where)
  if math.type(value) then
    if value < 1e8 then fail("%s: %s is no time (%s)", where, value, date_help) end
    return function() return value, value + 1 end
  end
  if type(value) ~= "string" then fail("%s: a %s is no time (%s)", where, type(value), date_help) end
  local from, to = parse_date(value)
  if from then
    return function() return from, to end
  end
  local span = prim.span(value)
  if not span then fail("%s: %s is no time (%s)", where, quote(value), date_help) end
  return function()
    local at = os.time() - span
    return at, at
  end
end

local function compile_range(value, where)
  for key in pairs(value) do
    if key ~= "from" and key ~= "to" then fail('%s: a range of dates has the keys from and to, not %s', where, quote(key)) end
  end
  local from = value.from and compile_time(value.from, where) or function() return math.mininteger end
  local to = value.to and compile_time(value.to, where) or function() return 0, math.maxinteger end
  return function(time)
    local first = from()
    local _, last = to()
    return time >= first and time < last
  end
end

local function compile_date(value, where)
  if type(value) == "function" then return value end
  if is_group(value) or (type(value) == "table" and value[1] ~= nil) then
    local functions = {}
    for i, item in ipairs(value.alternatives or value) do functions[i] = compile_date(item, where) end
    return one_of(functions, value.negate or false)
  end
  if type(value) == "table" then
    if next(value) == nil then fail("%s: an empty list matches nothing", where) end
    return compile_range(value, where)
  end
  if type(value) == "string" and prim.span(value) and not parse_date(value) then
    fail('%s: %s is a span of time (write newer = %s, or older = %s)', where, quote(value), quote(value), quote(value))
  end
  local range = compile_time(value, where)
  return function(time)
    local first, last = range()
    return time >= first and time < last
  end
end

-- Keys: a function (value, where) that answers a function of the message or part.

local function text_key(get, check)
  return function(value, where)
    local holds = compile_value(value, where, check)
    return function(x) return holds(get(x)) end
  end
end

-- A field that is nil, or empty, when absent.
local function field_key(name, check)
  return text_key(function(x)
    local text = x[name]
    if text == nil or text == "" then return {} end
    return { text }
  end, check)
end

local function list_key(name, check)
  return text_key(function(x) return x[name] end, check)
end

local function address_key(field)
  return text_key(function(m)
    local texts = {}
    for _, a in ipairs(m:addresses(field)) do
      if a.addr ~= "" then texts[#texts + 1] = a.addr end
    end
    return texts
  end, check_address)
end

local function number_key(name, compile, holds)
  return function(value, where)
    local bound = compile(value, where)
    return function(x) return holds(x[name], bound) end
  end
end

local function size_equals(value, where)
  if type(value) == "function" then
    return function(x) return value(x.size) end
  end
  local bytes = compile_size(value, where)
  return function(x) return x.size == bytes end
end

local function date_key(name)
  return function(value, where)
    local holds = compile_date(value, where)
    return function(x) return holds(x[name]) end
  end
end

local function boolean_key(name)
  return function(value, where)
    if type(value) ~= "boolean" then fail("%s: true or false is expected", where) end
    return function(x) return x[name] == value end
  end
end

-- { header = { ["X-Spam"] = value } }: each of them must hold.
local function table_key(get, example)
  return function(value, where)
    if type(value) ~= "table" or is_group(value) or kind(value) then
      fail('%s: a table of names and values is expected: %s', where, example)
    end
    local functions = {}
    for name, pattern in pairs(value) do
      if type(name) ~= "string" or name == "" or name:find(":", 1, true) then
        fail('%s: %s is no name (%s)', where, quote(name), example)
      end
      local holds = compile_value(pattern, ("%s %s"):format(where, quote(name)))
      functions[#functions + 1] = function(m) return holds(get(m, name)) end
    end
    if #functions == 0 then fail("%s: an empty table tests nothing", where) end
    return all_of(functions)
  end
end

local function parts_key(method)
  return function(value, where)
    if value == false then
      return function(m) return #m[method](m) == 0 end
    end
    local holds = value == true and function() return true end or match.compile_filter(value == "*" and true or value, where)
    local unpack = type(value) == "table" and value.unpack
    return function(m)
      for _, part in ipairs(unpack and m[method](m, { unpack = true }) or m[method](m)) do
        if holds(part) then return true end
      end
      return false
    end
  end
end

local function recipients(m)
  local texts = {}
  for _, name in ipairs { "to", "cc", "bcc" } do
    for _, address in ipairs(m[name]) do texts[#texts + 1] = address end
  end
  texts[#texts + 1] = m.envelope_to
  return texts
end

local function flag_list(m)
  local letters = {}
  for letter in m.flags:gmatch "." do letters[#letters + 1] = letter end
  return letters
end

local function group_key(negate)
  return function(value)
    return compile_group(group(negate and "none" or "any", value, negate), match.compile)
  end
end

--- { key = value, … } -> test
-- A test of a message: all its keys must hold, and so must tests that stand in it without a key. A value is a caseless glob over the whole decoded
-- text, re "…", a list of values (one of them), mail.none { … } (none of them), "*" or true (present), false (absent), or a function of
-- the text (nil where it is absent). Where a message has several texts under a key, one that holds is enough.
-- option from: an address of From; a pattern needs an @: "*@bank.example".
-- option to: an address of To.
-- option cc: an address of Cc.
-- option bcc: an address of Bcc.
-- option sender: the address of Sender.
-- option reply_to: an address of Reply-To (absent where there is no such field, though m.reply_to then is m.from).
-- option envelope_to: whom the envelope named.
-- option recipient: an address of To, Cc, Bcc or the envelope.
-- option subject: the Subject; an empty one is absent.
-- option from_name: the display name in From.
-- option list_id: what stands in the angle brackets of List-Id.
-- option message_id: the Message-ID without angle brackets.
-- option in_reply_to: the first id of In-Reply-To.
-- option references: an id of References.
-- option uid: the POP3 server's unique id.
-- option account: the account's name.
-- option source: the source as a person names it.
-- option folder: the folder below the source.
-- option flags: a flag, as a letter ("S") or a word: draft flagged passed forwarded replied answered seen read trashed deleted.
-- option defects: a name in m.defects.
-- option text: the text to read, m.text.
-- option body: the same.
-- option html: the HTML, m.html.
-- option raw: the bytes of the whole message, cut at limits.text.
-- option sha256: the hash of the whole message.
-- option size: exactly so many bytes: a number, "5 MB", or a function.
-- option larger: more bytes than this.
-- option smaller: fewer bytes than this.
-- option date: m.date lies in a day "2026-11-23", a month "2026-11", a year "2026", a minute "2026-11-23 10:30", in one of a list, or in the range
-- { from = …, to = … }, both included. Local time; with a Z at the end UTC.
-- option received: the same of m.received.
-- option newer: m.date is later than "30 days" ago, or not before a date (or a number as m.date is).
-- option older: m.date is earlier than "30 days" ago, or before a date.
-- option header: a table of field names and values: { ["Auto-Submitted"] = false }. A field without text is present.
-- option vars: a table of names in m.vars and values.
-- option attachment: some attachment passes: a glob for its name, with a slash for its type, an attachment test; "*" or true: there is one; false: none.
-- option part: the same for the parts that m:parts() lists.
-- option any: a list of tests, one of which must hold: as mail.any.
-- option none: a list of tests, none of which may hold: as mail.none.
local message_keys = {
  from = address_key "From",
  to = list_key("to", check_address),
  cc = list_key("cc", check_address),
  bcc = list_key("bcc", check_address),
  sender = address_key "Sender",
  reply_to = address_key "Reply-To",
  envelope_to = field_key("envelope_to", check_address),
  recipient = text_key(recipients, check_address),
  subject = field_key "subject",
  from_name = field_key "from_name",
  list_id = field_key "list_id",
  message_id = field_key "message_id",
  in_reply_to = field_key "in_reply_to",
  references = list_key "references",
  uid = field_key "uid",
  account = field_key "account",
  source = field_key "source",
  folder = field_key "folder",
  flags = text_key(flag_list, check_flag),
  defects = list_key "defects",
  text = field_key "text",
  body = field_key "text",
  html = field_key "html",
  raw = field_key "raw",
  sha256 = field_key "sha256",
  size = size_equals,
  larger = number_key("size", compile_size, function(size, bound) return size > bound end),
  smaller = number_key("size", compile_size, function(size, bound) return size < bound end),
  date = date_key "date",
  received = date_key "received",
  newer = number_key("date", compile_time, function(date, range) return date >= (range()) end),
  older = number_key("date", compile_time, function(date, range) return date < (range()) end),
  header = table_key(function(m, name) return m:headers(name) end, 'header = { ["X-Spam-Flag"] = "yes" }'),
  vars = table_key(function(m, name)
    local value = m.vars[name]
    if value == nil then return {} end
    return { tostring(value) }
  end, 'vars = { number = "A*" }'),
  attachment = parts_key "attachments",
  part = parts_key "parts",
  any = group_key(false),
  none = group_key(true),
}

-- The declared type, or what the bytes are where the declaration says nothing.
local generic = {
  ["application/octet-stream"] = true, ["binary/octet-stream"] = true, ["application/x-download"] = true,
  ["application/force-download"] = true, ["application/unknown"] = true, ["application/x-unknown"] = true,
}

local function type_list(part)
  local declared = part.type
  if generic[declared] or not prim.declared(part) then
    local found = part.detected
    return { found ~= "" and found or declared }
  end
  return { declared }
end

--- { key = value, … } -> attachment test
-- A test of a part, for m:attachments, m:parts, part:parts, attachment and part: all its keys must hold; of what stands in it without a key (globs, tests) at
-- least one must. A glob without a table is a name, or with a slash a type.
-- option name: the declared file name; an empty one is absent.
-- option type: the declared type, or the detected one where the declared one is generic or missing: "image/png".
-- option detected: the type that libmagic finds.
-- option disposition: "attachment", "inline".
-- option charset: the declared charset.
-- option id: the Content-ID.
-- option path: the place in the message, "2.1".
-- option reason: why it counts as attached or not.
-- option text: the decoded text, cut at limits.text.
-- option content: the decoded bytes, cut at limits.text.
-- option sha256: the hash of the decoded bytes.
-- option size: exactly so many decoded bytes.
-- option larger: more decoded bytes than this.
-- option smaller: fewer decoded bytes than this.
-- option attached: true or false, as part.attached.
-- option encrypted: true or false, as part.encrypted.
-- option member: where a member lies in its archive, "docs/*.pdf".
-- option unpack: true opens archives (zip, tar, 7z, gz, xz, zst, bz2): their members are looked at in their place. Only in the table itself, not in
-- those within it.
local part_keys = {
  name = field_key "name",
  type = text_key(type_list),
  detected = field_key "detected",
  disposition = field_key "disposition",
  charset = field_key "charset",
  id = field_key "id",
  member = field_key "member",
  path = field_key "path",
  reason = field_key "reason",
  text = field_key "text",
  content = field_key "content",
  sha256 = field_key "sha256",
  size = size_equals,
  larger = message_keys.larger,
  smaller = message_keys.smaller,
  attached = boolean_key "attached",
  encrypted = boolean_key "encrypted",
}

local function names_of(keys)
  local names = {}
  for name in pairs(keys) do names[#names + 1] = name end
  table.sort(names)
  return names
end

match.message_keys = names_of(message_keys)
match.part_keys = names_of(part_keys)

local function unknown_key(key, names, what)
  local near = type(key) == "string" and nearest(key, names)
  fail("unknown key %s in %s%s", type(key) == "string" and "'" .. key .. "'" or "[" .. tostring(key) .. "]", what,
    near and (" (did you mean '%s'?)"):format(near) or "")
end

local function compile_keys(test, keys, names, what, functions)
  for key, value in pairs(test) do
    if math.type(key) ~= "integer" then
      local compile = keys[key]
      if not compile then unknown_key(key, names, what) end
      functions[#functions + 1] = compile(value, key)
    end
  end
end

--- match.compile(test) -> function
-- What mail.rule and m:matches make of a test: a function of a message that answers true or false. A table's keys must all hold, and so must the
-- tests that stand in it without a key.
function match.compile(test)
  if type(test) == "function" then return test end
  if is_group(test) then return compile_group(test, match.compile) end
  if type(test) ~= "table" then
    fail('a test is a table such as { from = "*@bank.example" }, a function, mail.any or mail.none, not %s', quote(test))
  end
  local functions = {}
  for _, item in ipairs(test) do functions[#functions + 1] = match.compile(item) end
  compile_keys(test, message_keys, match.message_keys, "a test", functions)
  if #functions == 0 then
    return function() return true end
  end
  return all_of(functions)
end

local function compile_name(pattern)
  return (pattern:find("/", 1, true) and part_keys.type or part_keys.name)(pattern, "attachment")
end

local function compile_inner(filter)
  if type(filter) == "table" and not is_group(filter) and filter.unpack then
    fail "unpack = true stands in the filter itself, not in a table within it"
  end
  return match.compile_filter(filter)
end

--- match.compile_filter(filter) -> function
-- The same for parts: text is a glob for the name, or with a slash for the type; a table's keys must all hold; of what stands in it without a
-- key at least one must.
function match.compile_filter(filter)
  if filter == true then
    return function() return true end
  end
  if type(filter) == "string" then return compile_name(filter) end
  if kind(filter) == "re" then return part_keys.name(filter, "attachment") end
  if type(filter) == "function" then return filter end
  if is_group(filter) then return compile_group(filter, compile_inner) end
  if type(filter) ~= "table" then
    fail('an attachment filter is a glob such as "*.pdf", a table, or a function, not %s', quote(filter))
  end
  local functions, items, keys = {}, {}, {}
  for i, item in ipairs(filter) do items[i] = compile_inner(item) end
  if #items > 0 then functions[1] = one_of(items, false) end
  for key, value in pairs(filter) do
    if key ~= "unpack" then keys[key] = value end
  end
  if filter.unpack ~= nil and type(filter.unpack) ~= "boolean" then fail("unpack is true or false, not %s", quote(filter.unpack)) end
  compile_keys(keys, part_keys, match.part_keys, "an attachment test", functions)
  if #functions == 0 then return match.compile_filter(true) end
  return all_of(functions)
end

return match
