-- A script's own options: declared once, checked, explained by --help. This makes a script a command.

local prim = require "mail.primitives"

-- What the command line tells and asks (lua/cli.c): command, cwd, checking, help_asked, taken; declared, sources, ended, code.
local options = { command = "SCRIPT", cwd = "", taken = {}, checking = false, help_asked = false, declared = false, sources = {} }

local function usage_error(text, ...)
  options.ended = ("%s: %s"):format(options.command, text:format(...))
  options.code = 64
  error(options.ended, 0)
end

local function finish(text)
  options.ended, options.code = text, 0
  error("ended by mail.options", 0)
end

local function misuse(text, ...)
  error("mail.options: " .. text:format(...), 0)
end

-- Values

local function integer(text)
  local n = math.tointeger(tonumber(text))
  if not n then return nil, "is no whole number" end
  return n
end

local function number(text)
  local n = tonumber(text)
  if not n then return nil, "is no number" end
  return n
end

local function size(text)
  local ok, n = pcall(prim.size, tonumber(text) or text)
  if not ok then return nil, 'is no size (bytes, "20 kB", "5 MiB")' end
  return n
end

local function span(text)
  local ok, n = pcall(prim.span, text)
  if not ok or not n then return nil, 'is no span of time ("30 days", "12 hours")' end
  return n
end

-- A file or directory as the user means it: relative to where the command was typed, whatever the script's own place.
local function path(text)
  if text == "" then return nil, "is no path" end
  if text:match("^/") or text:match("^~") then return text end
  return options.cwd .. "/" .. text
end

local readers = {
  string = function(text) return text end,
  path = path,
  integer = integer,
  number = number,
  size = size,
  span = span,
  choice = function(text, option)
    for _, choice in ipairs(option.choices) do
      if text == choice then return text end
    end
    return nil, "is not possible: " .. table.concat(option.choices, ", ")
  end,
}

local type_names = { "flag", "string", "path", "integer", "number", "size", "span", "choice" }

-- The declaration

local option_keys = { "short", "type", "default", "value", "help", "choices", "many", "required" }
local declaration_keys = { "about", "usage", "sources" }

local function contains(list, name)
  for _, item in ipairs(list) do
    if item == name then return true end
  end
  return false
end

local function check_key(key, names, where)
  if type(key) == "number" or contains(names, key) then return end
  local near = prim.nearest(tostring(key), names)
  misuse("unknown key '%s' in %s%s", tostring(key), where, near and (" (did you mean '%s'?)"):format(near) or "")
end

local function check_option(option, where)
  for key in pairs(option) do check_key(key, option_keys, where) end
  local kind = option.type
  if kind ~= "flag" and not readers[kind] then
    local near = prim.nearest(tostring(kind), type_names)
    misuse("%s: unknown type '%s'%s", where, tostring(kind), near and (" (did you mean '%s'?)"):format(near) or "")
  end
  if kind == "choice" and type(option.choices) ~= "table" then misuse("%s: a choice needs choices = { … }", where) end
  if option.short and not tostring(option.short):match("^%a$") then misuse("%s: short is one letter", where) end
  if option.many and kind == "flag" then misuse("%s: a flag is given or not; many = true goes with a value", where) end
  if option.many and option.default ~= nil and type(option.default) ~= "table" then misuse("%s: with many = true the default is a list", where) end
end

-- A default is written as a user would write it: "5 MB" is its bytes.
local function check_default(option, where)
  local text = option.default
  if type(text) ~= "string" or option.type == "flag" or option.type == "path" then return end
  local value, why = readers[option.type](text, option)
  if value == nil then misuse("%s: the default '%s' %s", where, text, why) end
  option.value_of_default = value
end

-- From the declaration to options in order, found by name and by letter.
local function understand(declaration)
  local list, by_name, by_short = {}, {}, {}
  for key in pairs(declaration) do check_key(key, declaration_keys, "the declaration") end
  for i, given in ipairs(declaration) do
    local name = given[1]
    if type(name) ~= "string" or not name:match("^%a[%w-]*$") then
      misuse('option %d has no name: { "name", help = "…" }', i)
    end
    local option = { name = name, key = name:gsub("-", "_") }
    for key, value in pairs(given) do
      if key ~= 1 then option[key] = value end
    end
    option.type = option.type or (type(option.default) == "number" and "number" or (option.value or option.required) and "string" or "flag")
    local copy = {}
    for key, value in pairs(option) do
      if key ~= "name" and key ~= "key" then copy[key] = value end
    end
    check_option(copy, "option " .. name)
    check_default(option, "option " .. name)
    if name == "sources" then misuse("option --sources: o.sources are the sources named on the command line") end
    if options.taken[name] then misuse("option --%s is mailmill's own", name) end
    if option.short and options.taken[option.short] then misuse("option -%s is mailmill's own", option.short) end
    if by_name[name] then misuse("option --%s is declared twice", name) end
    if by_short[option.short] then misuse("option -%s stands for --%s and --%s", option.short, by_short[option.short].name, name) end
    list[i], by_name[name] = option, option
    if option.short then by_short[option.short] = option end
  end
  return list, by_name, by_short
end

-- Help

local function label(option)
  local value = option.type == "flag" and "" or " " .. (option.value or option.type:upper())
  return ("  %s--%s%s"):format(option.short and "-" .. option.short .. ", " or "    ", option.name, value)
end

local function default_text(option)
  if option.required then return " (required)" end
  if option.many or option.default == nil or option.type == "flag" then return "" end
  return (" (%s)"):format(tostring(option.default))
end

local function help_text(declaration, list)
  local lines = { ("usage: mailmill %s %s"):format(options.command, declaration.usage or (declaration.sources == false and "[OPTION…]" or "[OPTION…] SOURCE…")) }
  if declaration.about then lines[#lines + 1] = declaration.about end
  lines[#lines + 1] = ""
  for _, option in ipairs(list) do
    local left = label(option)
    lines[#lines + 1] = left .. (" "):rep(math.max(2, 27 - #left)) .. (option.help or "") .. default_text(option)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "and mailmill's own: --dry-run --json --limit --root --state --verbose … (mailmill --help)"
  return table.concat(lines, "\n") .. "\n"
end

-- Arguments

local function unknown(word, list)
  local names = {}
  for i, option in ipairs(list) do names[i] = option.name end
  for name in pairs(options.taken) do
    if #name > 1 then names[#names + 1] = name end
  end
  local near = #word > 2 and prim.nearest(word:gsub("^%-+", ""), names)
  usage_error("unknown option %s%s", word, near and (" (did you mean --%s?)"):format(near) or " (--help lists them)")
end

local function store(values, option, text)
  local value, why = readers[option.type](text, option)
  if value == nil then usage_error("--%s: '%s' %s", option.name, text, why) end
  if option.many then
    local all = values[option.key] or {}
    all[#all + 1] = value
    values[option.key] = all
  else
    values[option.key] = value
  end
end

local function take_option(values, option, inline, words, at)
  if option.type == "flag" then
    if inline then usage_error("--%s takes no value", option.name) end
    values[option.key] = true
    return at
  end
  if inline then
    store(values, option, inline)
    return at
  end
  if words[at + 1] == nil then usage_error("--%s needs a value (%s)", option.name, option.value or option.type) end
  store(values, option, words[at + 1])
  return at + 1
end

local function read(words, list, by_name, by_short)
  local values, rest, at = {}, {}, 1
  while at <= #words do
    local word = words[at]
    local name, inline = word:match("^%-%-([^=]+)=?(.*)$")
    if word == "--" then
      table.move(words, at + 1, #words, #rest + 1, rest)
      break
    elseif name then
      local option = by_name[name]
      if not option then unknown("--" .. name, list) end
      at = take_option(values, option, word:find("=", 1, true) and inline or nil, words, at)
    elseif word:match("^%-.") then
      local option = by_short[word:sub(2, 2)]
      if not option then unknown(word, list) end
      at = take_option(values, option, #word > 2 and word:sub(3) or nil, words, at)
    else
      rest[#rest + 1] = word
    end
    at = at + 1
  end
  return values, rest
end

local function fill_in(values, list)
  for _, option in ipairs(list) do
    if values[option.key] == nil then
      if option.required then usage_error("--%s is missing (%s)", option.name, option.help or "required") end
      if option.many then
        values[option.key] = type(option.default) == "table" and option.default or {}
      elseif option.type == "flag" then
        values[option.key] = option.default or false
      elseif option.type == "path" and option.default then
        values[option.key] = path(option.default)
      else
        values[option.key] = option.value_of_default or option.default
      end
    end
  end
end

-- What the script gets: a name it did not declare is an error, not nil.
local function strict(values, list)
  local names = { "sources" }
  for _, option in ipairs(list) do names[#names + 1] = option.key end
  return setmetatable(values, { __index = function(_, key)
    if contains(names, key) then return nil end
    local near = prim.nearest(tostring(key), names)
    error(("there is no option '%s'%s"):format(tostring(key), near and (" (did you mean '%s'?)"):format(near) or ""), 2)
  end })
end

--- mail.options { about=, usage=, sources=, { name, … }, … } -> table
-- Declares the options of a script and reads them from the command line: `mailmill script.lua --output DIR FILE`. What is left over are
-- sources; `sources = false` allows none, `sources = true` demands one. --help prints the declaration. Wrong arguments end the program with
-- exit code 64 and one line. The answer has a field for each option (dashes become underscores) and `sources`.
-- option about: one sentence for --help.
-- option usage: what stands behind the name in the usage line.
-- option sources: false: none are allowed; true: at least one is needed.
local function declare(_, declaration)
  if type(declaration) ~= "table" then misuse("a table is needed") end
  if options.declared then misuse("a script declares its options once") end
  local list, by_name, by_short = understand(declaration)
  options.declared = true
  if options.checking then finish("") end
  if options.help_asked then finish(help_text(declaration, list)) end
  local values, rest = read(arg, list, by_name, by_short)
  fill_in(values, list)
  if declaration.sources == false and #rest > 0 then usage_error("it takes no sources: '%s'", rest[1]) end
  if declaration.sources == true and #rest == 0 then usage_error("which sources? (--help tells more)") end
  options.sources, values.sources = rest, rest
  return strict(values, list)
end

return setmetatable(options, { __call = declare, __metatable = false })
