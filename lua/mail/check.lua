-- What is wrong with a script, found without running it: names that can't be right where the source shows what they belong to. Everything at
-- once, each with its place and the nearest right name. The names come from the documentation of the bindings (lua/doc.lua).
--
-- Lua itself has compiled the text before, so the parser here may believe that it is well-formed, and looks only at names. A value is described
-- as { kind = "message" } for what the name tables know, { path = "mail.account" } for what is reached from a global name, { text = "…" } for a literal
-- string, { entries = { … } } for a literal table; {} is a value of which nothing is known.

local prim = require "mail.primitives"
local match = require "mail.match"
local api = require "mail.api"
local tokens_of = require "mail.tokens"
local closed = require "mail.closed" -- functions that only raise, and with which words

local check = {}
local UNITS_MAX, PROBLEMS_MAX = 100, 200
local UNKNOWN = {}

-- Problems

local Checker = {}
Checker.__index = Checker

function Checker:complain(line, text, ...)
  local list = self.shared.problems
  if #list < PROBLEMS_MAX then list[#list + 1] = { unit = self.unit.order, line = line, text = ("%s:%d: %s"):format(self.unit.name, line, text:format(...)) } end
end

local function nearest(name, names)
  local near = prim.nearest(name, names)
  return near and (" (did you mean '%s'?)"):format(near) or ""
end

local function has(list, name)
  for _, item in ipairs(list) do
    if item == name then return true end
  end
  return false
end

local function keys_of(entries)
  local names = {}
  for name in pairs(entries) do names[#names + 1] = name end
  return names
end

-- What the kinds know

local string_names = {}
for name in pairs(string) do string_names[name] = { kind = name == "gsub" and "string" or "", method = true } end
for _, name in ipairs { "format", "lower", "upper", "rep", "reverse", "sub" } do
  if string_names[name] then string_names[name].kind = "string" end
end
for name, entry in pairs(api.string or {}) do string_names[name] = entry end

local message_names = {}
for name, entry in pairs(api.message) do message_names[name] = entry end
message_names.pipe = message_names.pipe or api.part.pipe
message_names.verify = message_names.verify or api.part.verify
if not message_names.save.options then
  message_names.save = { kind = "string", method = true, options = api.part.save.options }
end

local kinds = {
  message = { names = message_names, words = "a message" },
  part = { names = api.part, words = "a part" },
  string = { names = string_names, words = "a string" },
  store = { names = nil },
}

local items = { parts = "part", strings = "string" }

-- Fields and methods of what is known. Answers the entry of the name tables, and the value it gives when read.
function Checker:member(value, name, line, called)
  local kind = kinds[value.kind]
  if value.path then return nil, self:global_member(value.path, name, line) end
  if not kind or not kind.names then return nil, UNKNOWN end
  local entry = kind.names[name]
  if not entry and value.kind == "string" then -- a script may give strings methods of its own
    self:doubt("string", name, line, called and "method" or "field", kind.words, keys_of(kind.names))
    return nil, UNKNOWN
  elseif not entry then
    self:complain(line, "unknown %s '%s' of %s%s", called and "method" or "field", name, kind.words, nearest(name, keys_of(kind.names)))
    return nil, UNKNOWN
  end
  if called and not entry.method then
    self:complain(line, "'%s' of %s is a field, not a method: write .%s", name, kind.words, name)
    return nil, UNKNOWN
  end
  if entry.method then return entry, { entry = entry } end
  return entry, entry.kind ~= "" and { kind = entry.kind } or UNKNOWN
end

-- Wrong unless the script itself puts it there: decided at the end.
function Checker:doubt(path, name, line, what, words, names)
  local list = self.shared.doubts
  list[#list + 1] = { checker = self, path = path, name = name, line = line, what = what, words = words, names = names }
end

-- mail.acount: a field of a table that stands in a global name from the start.
function Checker:global_member(path, name, line)
  local table = self.shared.globals[path]
  if type(table) ~= "table" then return UNKNOWN end
  local ok, found = pcall(function() return table[name] end)
  if ok and closed[found] then
    local list = self.shared.doubts
    list[#list + 1] = { checker = self, path = path, name = name, line = line, closed = closed[found] }
  end
  if ok and found ~= nil then return { path = path .. "." .. name } end
  local names = {}
  for key in pairs(table) do
    if type(key) == "string" then names[#names + 1] = key end
  end
  for full in pairs(api.functions) do
    local own = full:match("^" .. path .. "%.(.*)$")
    if own and rawget(table, own) == nil then names[#names + 1] = own end
  end
  if path ~= "arg" then self:doubt(path, name, line, "field", path, names) end
  return UNKNOWN
end

-- Literals in calls

function Checker:check_keys(value, names, what)
  for _, entry in ipairs(value.entries or {}) do
    if type(entry.key) == "string" and not has(names, entry.key) then
      self:complain(entry.line, "unknown option '%s' of %s%s", entry.key, what, nearest(entry.key, names))
    end
  end
end

local either = {}
for _, list in ipairs { match.message_keys, match.part_keys } do
  for _, name in ipairs(list) do either[#either + 1] = name end
end
local filter_keys = { "unpack" }
for _, name in ipairs(match.part_keys) do filter_keys[#filter_keys + 1] = name end

function Checker:check_test(value, names, what)
  for _, entry in ipairs(value.entries or {}) do
    if type(entry.key) == "string" then
      if not has(names, entry.key) then
        self:complain(entry.line, "unknown key '%s' in %s%s", entry.key, what, nearest(entry.key, names))
      elseif entry.key == "attachment" or entry.key == "part" then
        self:check_test(entry.value, filter_keys, "an attachment test")
      elseif entry.key == "any" or entry.key == "none" then
        for _, item in ipairs(entry.value.entries or {}) do
          if item.key == nil then self:check_test(item.value, names, what) end
        end
      end
    elseif entry.key == nil then
      self:check_test(entry.value, names, what)
    end
  end
end

function Checker:check_template(value, line)
  local text = value.text and value.text:gsub("{{", ""):gsub("}}", "")
  if not text then return end
  for field in text:gmatch("{([%w_%.]*)[^{}]*}") do
    if not has(api.template, field) and not field:match("^vars%.[%w_]+$") then
      self:complain(line, "unknown field {%s} in a template%s", field, nearest(field, api.template))
    end
  end
end

-- What a function written there as an argument gets: the kinds of its parameters.
local handlers = {
  ["mail.on_message"] = { "message" }, ["mail.rule"] = { "message" }, [":matches"] = { "message" }, [":attachments"] = { "part" }, [":parts"] = { "part" },
}

function Checker:check_call(callee, name, arguments, line)
  local entry = callee.entry or (callee.path and api.functions[callee.path])
  local path, method = callee.path or "", callee.entry and name or ""
  if path == "mail.rule" and arguments[2] then
    self:check_test(arguments[2], match.message_keys, "a test")
  elseif path == "mail.any" or path == "mail.none" then
    self:check_test(arguments[1] or UNKNOWN, either, "a test")
  elseif method == "matches" then
    self:check_test(arguments[1] or UNKNOWN, match.message_keys, "a test")
  elseif method == "attachments" or method == "parts" then
    self:check_test(arguments[1] or UNKNOWN, filter_keys, "an attachment test")
  elseif entry and entry.options then
    for _, argument in ipairs(arguments) do self:check_keys(argument, entry.options, path ~= "" and path or method) end
  end
  if (method == "save" or method == "deliver") and arguments[1] then self:check_template(arguments[1], line) end
  if path == "require" and arguments[1] and arguments[1].text then self.shared.require(self.unit, arguments[1].text) end
  if path == "ipairs" and arguments[1] then return { each = items[arguments[1].kind] } end
  return entry and entry.kind ~= "" and { kind = entry.kind } or UNKNOWN
end

-- Scopes: a list of tables, name to value; values of locals may be forgotten when something else is assigned.

function Checker:open() self.scopes[#self.scopes + 1] = {} end
function Checker:close() self.scopes[#self.scopes] = nil end
function Checker:declare(name, value) self.scopes[#self.scopes][name] = { value = value or UNKNOWN } end

function Checker:find(name)
  for i = #self.scopes, 1, -1 do
    local variable = self.scopes[i][name]
    if variable then return variable end
  end
end

function Checker:read_name(name, line)
  local variable = self:find(name)
  if variable then return variable.value end
  if name == "_ENV" then
    self.shared.free = true
    return UNKNOWN
  end
  local reads = self.shared.reads
  reads[#reads + 1] = { checker = self, name = name, line = line }
  if self.shared.sets[name] then return UNKNOWN end
  return { path = name }
end

function Checker:write_name(name)
  local variable = self:find(name)
  if variable then
    variable.value = UNKNOWN
  else
    self.shared.sets[name] = true
  end
end

-- The parser: recursive descent over the tokens; the depth is that which Lua's own parser has allowed.

function Checker:is(kind) return self.kinds[self.at] == kind end
function Checker:line() return self.lines[self.at] end

function Checker:accept(kind)
  if self.kinds[self.at] ~= kind then return false end
  self.at = self.at + 1
  return true
end

function Checker:take(kind)
  local value = self.values[self.at]
  if self.kinds[self.at] ~= kind then error({ lost = true, line = self:line() }, 0) end
  self.at = self.at + 1
  return value
end

local function ends_block(kind)
  return kind == "end" or kind == "else" or kind == "elseif" or kind == "until" or kind == "end of file"
end

function Checker:block()
  self:open()
  self:statements()
  self:close()
end

function Checker:statements()
  while not ends_block(self.kinds[self.at]) do self:statement() end
end

function Checker:names(first)
  local names = { first or self:take "name" }
  while self:accept "," do names[#names + 1] = self:take "name" end
  return names
end

function Checker:expressions()
  local values = { self:expression() }
  while self:accept "," do values[#values + 1] = self:expression() end
  return values
end

local statements = {}

function Checker:statement()
  local kind = self.kinds[self.at]
  local parse = statements[kind]
  if parse then
    self.at = self.at + 1
    parse(self)
  elseif not self:accept ";" then
    self:expression_statement()
  end
end

function Checker:expression_statement()
  local targets = { self:suffixed(true) }
  while self:accept "," do targets[#targets + 1] = self:suffixed(true) end
  if not self:accept "=" then return end
  self:expressions()
  for _, target in ipairs(targets) do
    if target.target then self:write_name(target.target) end
  end
end

statements["if"] = function(self)
  self:expression()
  self:take "then"
  self:block()
  while self:accept "elseif" do
    self:expression()
    self:take "then"
    self:block()
  end
  if self:accept "else" then self:block() end
  self:take "end"
end

statements["while"] = function(self)
  self:expression()
  self:take "do"
  self:block()
  self:take "end"
end

statements["do"] = function(self)
  self:block()
  self:take "end"
end

statements["repeat"] = function(self)
  self:open()
  self:statements()
  self:take "until"
  self:expression()
  self:close()
end

statements["for"] = function(self)
  local names = self:names()
  local numeric = self:accept "="
  if not numeric then self:take "in" end
  local first = self:expressions()[1]
  self:take "do"
  self:open()
  for i, name in ipairs(names) do
    local value = UNKNOWN
    if not numeric and i == 1 and items[first.kind] then value = { kind = items[first.kind] } end
    if not numeric and i == 2 and first.each then value = { kind = first.each } end
    self:declare(name, value)
  end
  self:statements()
  self:close()
  self:take "end"
end

statements["function"] = function(self)
  local line, name, method = self:line(), self:take "name", false
  if self:is "." or self:is ":" then
    self:read_name(name, line)
  else
    self:write_name(name)
  end
  while self:is "." or self:is ":" do
    method = self:is ":"
    self.at = self.at + 1
    name = name .. "." .. self:take "name"
    self.shared.extended[name] = true
  end
  self:body(method and { self = UNKNOWN } or nil)
end

statements["local"] = function(self)
  if self:accept "function" then
    self:declare(self:take "name")
    self:body()
    return
  end
  local names = {}
  repeat
    names[#names + 1] = self:take "name"
    if self:accept "<" then
      self:take "name"
      self:take ">"
    end
  until not self:accept ","
  local values = self:accept "=" and self:expressions() or {}
  for i, name in ipairs(names) do
    local value = values[i] or UNKNOWN
    self:declare(name, (value.kind or value.path) and { kind = value.kind, path = value.path } or UNKNOWN)
  end
end

statements["return"] = function(self)
  if not ends_block(self.kinds[self.at]) and not self:is ";" then self:expressions() end
  self:accept ";"
end

statements["goto"] = function(self) self:take "name" end
statements["break"] = function() end
statements["::"] = function(self)
  self:take "name"
  self:take "::"
end

-- A function's parameters and body. first: names declared before ("self"). kinds: what its parameters are, where that is known.
function Checker:body(first, parameter_kinds)
  self:open()
  for name, value in pairs(first or {}) do self:declare(name, value) end
  self:take "("
  local i = 0
  while not self:is ")" do
    if not self:accept "..." then
      i = i + 1
      local kind = parameter_kinds and parameter_kinds[i]
      self:declare(self:take "name", kind and { kind = kind } or UNKNOWN)
    end
    if not self:accept "," then break end
  end
  self:take ")"
  self:statements()
  self:take "end"
  self:close()
end

-- Binary operators only join; precedence does not matter to names. What "or" joins keeps its left side's kind when both sides agree.
local binary = {}
for symbol in ("+ - * / // % ^ .. == ~= < <= > >= & | ~ << >> and or"):gmatch("%S+") do binary[symbol] = true end

function Checker:expression(parameter_kinds)
  local value = self:operand(parameter_kinds)
  while binary[self.kinds[self.at]] do
    local operator = self.kinds[self.at]
    self.at = self.at + 1
    local right = self:operand()
    if operator == ".." then
      value = { kind = "string" }
    elseif not (operator == "or" and value.kind == right.kind and value.kind) then
      value = UNKNOWN
    end
  end
  return value
end

function Checker:operand(parameter_kinds)
  local kind = self.kinds[self.at]
  if kind == "not" or kind == "-" or kind == "#" or kind == "~" then
    self.at = self.at + 1
    self:operand()
    return UNKNOWN
  elseif kind == "string" then
    return { kind = "string", text = self:take "string" }
  elseif kind == "number" or kind == "nil" or kind == "true" or kind == "false" or kind == "..." then
    self.at = self.at + 1
    return UNKNOWN
  elseif kind == "{" then
    return self:constructor()
  elseif kind == "function" then
    self.at = self.at + 1
    self:body(nil, parameter_kinds)
    return UNKNOWN
  end
  return self:suffixed()
end

function Checker:constructor()
  local entries = {}
  self:take "{"
  while not self:is "}" do
    local entry = { line = self:line() }
    if self:is "name" and self.kinds[self.at + 1] == "=" then
      entry.key = self:take "name"
      self:take "="
    elseif self:accept "[" then
      entry.key = self:expression().text or false
      self:take "]"
      self:take "="
    end
    entry.value = self:expression()
    entries[#entries + 1] = entry
    if not (self:accept "," or self:accept ";") then break end
  end
  self:take "}"
  return { entries = entries }
end

function Checker:arguments(parameter_kinds)
  if self:is "string" then return { { kind = "string", text = self:take "string" } } end
  if self:is "{" then return { self:constructor() } end
  local values = {}
  self:take "("
  while not self:is ")" do
    values[#values + 1] = self:expression(parameter_kinds)
    if not self:accept "," then break end
  end
  self:take ")"
  return values
end

-- A name or (…) with what follows it: .field, [key], :method(…), (…). With statement, a bare name at its front may be assigned to.
function Checker:suffixed(statement)
  local value, target, name = UNKNOWN, nil, nil
  if self:accept "(" then
    value = self:expression()
    value = { kind = value.kind, path = value.path }
    self:take ")"
  else
    local line = self:line()
    name = self:take "name"
    local next = self.kinds[self.at]
    if statement and (next == "=" or next == ",") then return { target = name } end
    value = self:read_name(name, line)
  end
  while true do
    local line, kind = self:line(), self.kinds[self.at]
    if kind == "." then
      self.at = self.at + 1
      name = self:take "name"
      local assigned = statement and (self:is "=" or self:is ",")
      if assigned and value.path and not self:find(value.path) then
        self.shared.extended[value.path .. "." .. name] = true
        value = UNKNOWN
      else
        value = select(2, self:member(value, name, line, false))
      end
    elseif kind == "[" then
      self.at = self.at + 1
      local key = self:expression()
      self:take "]"
      value = items[value.kind] and not key.text and { kind = items[value.kind] } or UNKNOWN
    elseif kind == ":" then
      self.at = self.at + 1
      name = self:take "name"
      local _, method = self:member(value, name, line, true)
      local arguments = self:arguments(value.kind and handlers[":" .. name])
      value = self:check_call(method, name, arguments, line)
    elseif kind == "(" or kind == "{" or kind == "string" then
      local arguments = self:arguments(value.path and handlers[value.path])
      value = self:check_call(value, name, arguments, line)
    else
      break
    end
  end
  return value, target
end

-- Units

local function check_unit(shared, unit)
  local text = unit.text:gsub("^\xef\xbb\xbf", ""):gsub("^#[^\n]*", "")
  local ok, why = load(text, (unit.action and "=" or "@") .. unit.name, "t")
  local self = setmetatable({ shared = shared, unit = unit, scopes = { {} }, at = 1 }, Checker)
  if not ok then
    local line = tonumber(why:match(":(%d+): ")) or 0
    self:complain(line, "%s", (why:gsub("^.-:%d+: ", "", 1)))
    return
  end
  self.kinds, self.values, self.lines = tokens_of(text)
  if unit.action then self:declare("m", { kind = "message" }) end
  local done, lost = pcall(self.statements, self)
  if not done and not (type(lost) == "table" and lost.lost) then error(lost, 0) end
end

-- A module beside the script: what it sets counts, and what is wrong with it is found too.
local function beside(shared, unit, name)
  local path = (unit.dir or "") .. name:gsub("%.", "/") .. ".lua"
  if shared.seen[path] or #shared.units >= UNITS_MAX then return end
  shared.seen[path] = true
  local file = io.open(path, "rb")
  local text = file and file:read("a") -- nil: a directory; a FIFO is not opened
  if file then file:close() end
  if text then shared.units[#shared.units + 1] = { name = path, text = text, dir = unit.dir } end
end

-- What Lua has and a script has not.
local left_out = {
  os = { execute = true, exit = true, remove = true, rename = true, setlocale = true, tmpname = true },
  io = { close = true, input = true, output = true, popen = true, read = true, stderr = true, stdin = true, stdout = true, tmpfile = true, write = true },
}

local function check_globals(shared)
  local names = {}
  for name in pairs(shared.globals) do names[#names + 1] = name end
  for name in pairs(shared.sets) do names[#names + 1] = name end
  for _, read in ipairs(shared.reads) do
    if shared.globals[read.name] == nil and not shared.sets[read.name] and not shared.free then
      read.checker:complain(read.line, "global '%s' is read but never set%s", read.name, nearest(read.name, names))
    elseif closed[shared.globals[read.name]] and not shared.sets[read.name] and not shared.free then
      read.checker:complain(read.line, "%s", closed[shared.globals[read.name]])
    end
  end
  for _, d in ipairs(shared.doubts) do
    local own = shared.sets[d.path] or shared.extended[d.path .. "." .. d.name] or shared.free
    if d.closed and not own then
      d.checker:complain(d.line, "%s", d.closed)
    elseif not own then
      local given = (d.path == "os" and left_out.os[d.name]) or (d.path == "io" and left_out.io[d.name])
      d.checker:complain(d.line, "unknown %s '%s' of %s%s", d.what, d.name, d.words,
        given and (" (a script has it with --allow %s)"):format(d.path) or nearest(d.name, d.names))
    end
  end
end

-- units: { { name =, text =, dir =, action = }, … }. Answers the problems, in the order of their places.
function check.run(units)
  local shared = { problems = {}, reads = {}, sets = {}, doubts = {}, extended = {}, units = {}, seen = {}, globals = {}, free = false }
  for name, value in pairs(_G) do shared.globals[name] = value end
  shared.require = function(unit, name) beside(shared, unit, name) end
  for _, unit in ipairs(units) do shared.units[#shared.units + 1] = unit end
  local i = 1
  while shared.units[i] do
    shared.units[i].order = i
    check_unit(shared, shared.units[i])
    i = i + 1
  end
  check_globals(shared)
  table.sort(shared.problems, function(a, b)
    if a.unit ~= b.unit then return a.unit < b.unit end
    if a.line ~= b.line then return a.line < b.line end
    return a.text < b.text
  end)
  local texts = {}
  for _, problem in ipairs(shared.problems) do
    if problem.text ~= texts[#texts] then texts[#texts + 1] = problem.text end
  end
  return texts
end

return check
