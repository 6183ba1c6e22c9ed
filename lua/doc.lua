-- Reads the documentation blocks of the bindings (the form stands at the head of lua/face.h) and makes from them what can't go stale:
--   lua5.4 lua/doc.lua api OUT.lua      the name tables that `mailmill check` uses
--   lua5.4 lua/doc.lua readme           the reference and the list of defects between the markers in lua/README.md, written anew
--   lua5.4 lua/doc.lua verify           the same, but only says whether it would change something, and what entry has no block
--   lua5.4 lua/doc.lua man OUT.1        the man page, from lua/options.c, lua/main.c and the README

-- Where the files are: this script stands in lua/.
local top = (arg[0]:match("^(.*)lua/doc%.lua$") or "./")
if top == "" then top = "./" end

local function read(name)
  local file <close> = assert(io.open(top .. name, "rb"))
  return file:read("a")
end

local function list(pattern)
  local pipe <close> = assert(io.popen("cd '" .. top .. "' && LC_ALL=C ls " .. pattern))
  local names = {}
  for name in pipe:lines() do names[#names + 1] = name end
  return names
end

-- Blocks: { file =, line =, signature =, text = { lines }, options = { { name =, text = } } }

local function finish(block)
  local text, options, option = {}, {}, nil
  for _, line in ipairs(block.lines) do
    local name, rest = line:match("^option ([%w_%.]+): (.*)$")
    if name then
      option = { name = name, text = rest }
      options[#options + 1] = option
    elseif option then
      option.text = option.text .. " " .. line
    elseif line ~= "" then
      text[#text + 1] = line
    end
  end
  block.text, block.options = table.concat(text, " "), options
  return block
end

local function line_of(text, at)
  return select(2, text:sub(1, at):gsub("\n", "")) + 1
end

local function c_blocks(file, out)
  local text = read(file)
  for at, body in text:gmatch("()/%*%*%*(.-)%*/") do
    local lines, block = {}, { file = file, line = line_of(text, at) }
    for line in (body .. "\n"):gmatch("(.-)\n") do
      lines[#lines + 1] = (line:gsub("^%s*%*? ?", ""):gsub("%s+$", ""))
    end
    block.signature, block.lines = table.remove(lines, 1), lines
    if block.signature ~= "(collected)" then out[#out + 1] = finish(block) end
  end
end

local function lua_blocks(file, out)
  local block, number = nil, 0
  for line in (read(file) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local signature = line:match("^%s*%-%-%- (.*)$")
    local more = line:match("^%s*%-%- ?(.*)$")
    if signature then
      block = { file = file, line = number, signature = signature, lines = {} }
    elseif block and more then
      block.lines[#block.lines + 1] = more
    elseif block then
      out[#out + 1] = finish(block)
      block = nil
    end
  end
end

local function all_blocks()
  local blocks = {}
  for _, file in ipairs { "lua/lmessage.c", "lua/lpart.c" } do c_blocks(file, blocks) end -- a reader wants the fields first
  for _, file in ipairs(list "lua/*.c") do
    if not file:match("lmessage%.c$") and not file:match("lpart%.c$") then c_blocks(file, blocks) end
  end
  for _, file in ipairs(list "lua/mail/*.lua") do lua_blocks(file, blocks) end
  return blocks
end

-- Names

local class_of = { m = "message", part = "part", s = "string", r = "re", reader = "reader", store = "store" }

-- "m:attachments(filter) -> list of parts": owner, separator, name, what comes back.
local function parse(signature)
  local call, returns = signature:match("^(.-)%s*%->%s*(.*)$")
  local owner, separator, name = (call or signature):match("^([%a_]+)([.:])([%a_][%w_]*)")
  return owner, separator, name, returns, not (call or signature):match("^[%w_.:]+$")
end

-- What a value is to the check: "message", "part", "parts", "addresses", "string" …; nil: unknown.
local kinds = {
  { "^message$", "message" }, { "^list of parts$", "parts" }, { "^list of addresses$", "strings" }, { "^list of strings$", "strings" },
  { "^address", "string" }, { "^string", "string" }, { "^path", "string" }, { "^reader", "reader" }, { "^store$", "store" }, { "^re object$", "re" },
  { "^integer", "number" }, { "^boolean", "boolean" },
}

local function kind_of(returns)
  for _, k in ipairs(kinds) do
    if returns and returns:match(k[1]) then return k[2] end
  end
end

local function template_fields()
  local text, names = read "lua/ltemplate.c", {}
  for name in text:gmatch('{ "([%w_.]+)", get_[%w_]+ }') do names[#names + 1] = name end
  for name in assert(text:match("special%[%] = (%b{})")):gmatch('"([^"]+)"') do names[#names + 1] = name end
  table.sort(names)
  assert(#names > 20, "lua/ltemplate.c: the template fields are not where they were")
  return names
end

local function names_of_options(block)
  local names = {}
  for i, option in ipairs(block.options) do names[i] = ("%q"):format(option.name) end
  return "{ " .. table.concat(names, ", ") .. " }"
end

local function api_text(blocks)
  local classes, functions, out = {}, {}, { "-- Made by lua/doc.lua from the documentation of the bindings.\nreturn {" }
  for _, b in ipairs(blocks) do
    local owner, separator, name, returns, called = parse(b.signature)
    local class = class_of[owner]
    local entry = ("    [%q] = { kind = %q, method = %s%s },"):format(name or "", kind_of(returns) or "", tostring(separator == ":"),
      #b.options > 0 and ", options = " .. names_of_options(b) or "")
    if name and class then
      classes[class] = classes[class] or {}
      if not b.signature:match("=") then table.insert(classes[class], entry) end
    elseif name and called and owner ~= "primitives" then
      functions[#functions + 1] = ("    [%q] = { kind = %q%s },"):format(owner .. "." .. name, kind_of(returns) or "",
        #b.options > 0 and ", options = " .. names_of_options(b) or "")
    end
  end
  local order = {}
  for class in pairs(classes) do order[#order + 1] = class end
  table.sort(order)
  for _, class in ipairs(order) do
    out[#out + 1] = ("  %s = {"):format(class)
    table.move(classes[class], 1, #classes[class], #out + 1, out)
    out[#out + 1] = "  },"
  end
  out[#out + 1] = "  functions = {"
  table.move(functions, 1, #functions, #out + 1, out)
  out[#out + 1] = "  },\n  template = {"
  for _, name in ipairs(template_fields()) do out[#out + 1] = ("    %q,"):format(name) end
  out[#out + 1] = "  },\n}\n"
  return table.concat(out, "\n")
end

-- The reference

local sections = {
  { "Messages", "message", "Fields are computed when first read, never yield and never raise on broken mail. A message is also a part." },
  { "Parts and attachments", "part" },
  { "Strings and addresses", "string", "An address is a string; every string answers these." },
  { "Lists", "list" },
  { "Declarations and rules: mail", "mail" },
  { "Tests and filters", "match" },
  { "Stores", "store" },
  { "Readers", "reader" },
  { "Secrets", "secret", "Opaque handles: resolved when connecting, never seen by the script." },
  { "Regular expressions", "re" },
  { "JSON", "json" },
  { "CSV", "csv" },
  { "Log and output", "log" },
}

local owners = {
  m = "message", part = "part", s = "string", list = "list", mail = "mail", reader = "reader", secret = "secret", re = "re", r = "re", json = "json",
  csv = "csv", log = "log", store = "store", match = "match", primitives = false,
}

local function section_of(b)
  local s = b.signature
  if b.file:match("lmatch%.c$") then return nil end                -- what mail/match.lua is made with: not for scripts
  if s:match("^{") or s:match("test$") then return "match" end
  if s:match("^for x in list") or s:match("^list") or s:match("list%)") then return "list" end
  if s:match("^print") then return "log" end
  if s:match("^local r <close>") then return "reader" end
  if s:match("^re ") then return "re" end
  local owner = s:match("^tostring%((%a+)%)") or s:match("^pairs%((%a+)%)") or s:match("^#?(%a+)")
  if owner == "match" then return nil end                          -- for the engine
  if owners[owner] == nil then error(("%s:%d: %s: unknown owner %s"):format(b.file, b.line, s, tostring(owner))) end
  return owners[owner] or nil
end

local function escape(text)
  return (text:gsub("<", "&lt;"):gsub("%*", "\\*"):gsub("_", "\\_"))
end

local function reference(blocks)
  local by_section, out = {}, {}
  for _, b in ipairs(blocks) do
    local section = section_of(b)
    if section then
      by_section[section] = by_section[section] or {}
      table.insert(by_section[section], b)
    end
  end
  for _, s in ipairs(sections) do
    out[#out + 1] = "### " .. s[1] .. "\n"
    if s[3] then out[#out + 1] = s[3] .. "\n" end
    for _, b in ipairs(by_section[s[2]] or {}) do
      out[#out + 1] = ("- `%s`  "):format(b.signature)
      out[#out + 1] = "  " .. escape(b.text)
      for _, option in ipairs(b.options) do out[#out + 1] = ("  - `%s`: %s"):format(option.name, escape(option.text)) end
    end
    out[#out + 1] = ""
  end
  out[#out + 1] = "### Fields of templates\n"
  out[#out + 1] = "`{" .. table.concat(template_fields(), "}` `{") .. "}`\n"
  return table.concat(out, "\n")
end

local BEGIN, END = "<!-- reference: made by lua/doc.lua from the bindings -->\n", "<!-- end of the reference -->\n"

local DEFECTS, DEFECTS_END = "<!-- defects: made by lua/doc.lua from core/defects.c -->\n", "<!-- end of the defects -->\n"

local function defects()
  local out = { "| name | meaning |\n| --- | --- |" }
  for name, meaning in read("core/defects.c"):gmatch('{ "([%l.]+)", "(.-)" },') do
    out[#out + 1] = ("| %s | %s |"):format(name, (meaning:gsub("[<*_|]", { ["<"] = "&lt;", ["*"] = "\\*", ["_"] = "\\_", ["|"] = "\\|" })))
  end
  assert(#out > 20, "core/defects.c: the names are not where they were")
  return table.concat(out, "\n") .. "\n"
end

local function between(text, first, last, new)
  local from = select(2, text:find(first, 1, true))
  local to = text:find(last, 1, true)
  assert(from and to, "lua/README.md: a marker is missing: " .. first)
  return text:sub(1, from) .. "\n" .. new .. text:sub(to)
end

local function readme(blocks)
  local text = read "lua/README.md"
  local new = between(text, DEFECTS, DEFECTS_END, defects() .. "\n")
  return text, between(new, BEGIN, END, reference(blocks))
end

-- Every entry of a table of functions that scripts see has its block right above.
local function undocumented()
  local missing = {}
  for _, file in ipairs(list "lua/l*.c") do
    local number, before = 0, ""
    for line in (read(file) .. "\n"):gmatch("(.-)\n") do
      number = number + 1
      local in_table = line:match('^        { "([%w_]+)", [%w_]+ },$')
      if in_table and not before:match("%*/%s*$") and not (file:match("ltemplate") or file:match("lmail") and line:match("limits")) then
        missing[#missing + 1] = ("%s:%d: '%s' has no documentation block"):format(file, number, in_table)
      end
      before = line
    end
  end
  return missing
end

-- The man page

local function roff(text)
  return (text:gsub("\\", "\\e"):gsub("\n([.'])", "\n\\&%1"):gsub("^([.'])", "\\&%1"):gsub("%-", "\\-"):gsub("…", "\\&..."))
end

-- Text lines of at most 80 bytes, as mandoc wants them.
local function fold(line)
  local lines, n = {}, 0
  if #line <= 80 or line:match("^[.']") then return line end
  for word in line:gmatch("%S+") do
    if n > 0 and #lines[n] + 1 + #word <= 80 then
      lines[n] = lines[n] .. " " .. word
    else
      n = n + 1
      lines[n] = word:gsub("^([.'])", "\\&%1")
    end
  end
  return table.concat(lines, "\n")
end

local function man_commands(out)
  local text = assert(read("lua/main.c"):match("commands%[%] = (%b{})"))
  for name, usage, help in text:gmatch('{ "([%w-]+)", "(.-)", "(.-)", cmd_') do
    for form in (usage:gsub("\\n", "\n") .. "\n"):gmatch("(.-)\n") do
      out[#out + 1] = ".TP\n.B mailmill " .. roff(form:match("^%-e") and form or (name .. " " .. form):gsub(" $", ""))
    end
    out[#out + 1] = roff(help) .. "."
  end
end

local function man_options(out)
  local n = 0
  for name, letter, value, help in read("lua/options.c"):gmatch('{ "([%w-]+)", ([^,]+), OPT_%u+, [^"]-, "[^"]*", "(.-)", "(.-)" }') do
    out[#out + 1] = ".TP\n.B " .. roff((letter ~= "0" and "-" .. letter:sub(2, 2) .. ", " or "") .. "--" .. name .. (value ~= "" and " " .. value or ""))
    out[#out + 1] = roff(help) .. "."
    n = n + 1
  end
  assert(n > 10, "lua/options.c: the options are not where they were")
end

-- Markdown as plain as lua/README.md is: headings, lists, code, paragraphs.
local function man_text(out, text)
  local code, heading = false, nil
  for line in (text .. "\n"):gmatch("(.-)\n") do
    local plain = roff(line:gsub("`", ""):gsub("&lt;", "<"):gsub("\\([*_])", "%1"):gsub("%*%*", ""):gsub("%[([^%]]+)%]%([^)]*%)", "%1"))
    if line:match("^```") then
      code = not code
      out[#out + 1] = code and ".PP\n.nf\n.RS" or ".RE\n.fi"
    elseif code then
      out[#out + 1] = plain
    elseif line:match("^|") then
      local a, b = plain:gsub("\\e|", "\0"):match("^|%s*(.-)%s*|%s*(.-)%s*|")
      if line:match("^| %-%-%-") then
        out[heading] = ""                                            -- the line above it only names the columns
      elseif a then
        heading = #out + 1
        out[heading] = ".TP\n" .. (a .. "\n" .. b):gsub("\0", "|")
      end
    elseif line:match("^#+ ") then
      out[#out + 1] = ".SS " .. plain:gsub("^#+ ", "")
    elseif line:match("^%- ") then
      local item, entry = plain:gsub("^\\%- ", ""), line:match("  $")  -- an entry of the reference has its text on the next line
      out[#out + 1] = entry and ".TP\n.B " .. item:gsub("%s+$", ""):gsub('"', "\\(dq") or ".IP \\(bu 2\n" .. item:gsub("^([.'])", "\\&%1")
    elseif line:match("^  %- ") then
      out[#out + 1] = ".br\n" .. plain:gsub("^  \\%- ", "")
    elseif line == "" then
      out[#out + 1] = ".PP"
    elseif not line:match("^<!%-%-") then
      out[#out + 1] = (plain:gsub("^%s+", ""):gsub("^([.'])", "\\&%1"))
    end
  end
end

local function man_page()
  local version = assert(read("Makefile"):match("VERSION%s*:?=%s*(%S+)"))
  local guide = read("lua/README.md"):gsub("^# [^\n]*\n", ""):gsub("\n## How the face is built.*", "\n")
  local out = {
    ('.TH MAILMILL 1 "2026-11-23" "mailmill %s" "User commands"'):format(version),
    ".SH NAME\nmailmill \\- run a script over mail: fetch, decide, keep, save, forward",
    ".SH SYNOPSIS\n.B mailmill\n[\\fIoption\\fR ...] \\fIscript\\fR [\\fIsource\\fR ...]\n.br\n.B mailmill \\-e\n\\fIcode\\fR \\fIsource\\fR ...",
    ".SH DESCRIPTION\nmailmill fetches mail over POP3 or reads it from archives (mbox, Maildir, MH, .eml files, also compressed, in zip or tar, or on",
    "standard input), takes it apart, and hands every message to a Lua 5.4 script. What the script decides is carried out as one unit for each message, so",
    "that nothing is lost, nothing happens twice, and a rule can be tried with \\-\\-dry\\-run before it is trusted. Sources named on the command line",
    "replace those that the script declares.",
    ".SH COMMANDS",
  }
  man_commands(out)
  out[#out + 1] = ".TP\n.B mailmill show, extract, fetch\nReady\\-made scripts; \\-\\-help behind the name tells more."
  out[#out + 1] = ".SH OPTIONS"
  man_options(out)
  out[#out + 1] = ".SH EXIT STATUS\nFrom sysexits.h; 0 only if every message settled.\n.TP\n.B 64\nThe command line makes no sense, or a run that was cut off needs \\-\\-resume or \\-\\-from\\-start.\n.TP\n.B 65\nThe script can't be read, or" ..
    " has mistakes; or a message of an archive was over a limit and was not kept whole.\n.TP\n.B 66\nA file that was named is not there.\n.TP\n.B 69\nA server refused a mail for good.\n.TP\n.B 70\nmailmill itself, or what mail.on_finish does, failed.\n.TP\n.B 71\nThere is no memory.\n.TP\n.B 73\nA name is taken.\n.TP\n.B 74\nThe disk, or a directory, refused.\n.TP\n.B 75\nMessages are held or quarantined, or a server" ..
    " could not be reached: run it again.\n.TP\n.B 76\nA server broke the protocol, or its certificate was refused.\n.TP\n.B 77\nThe login was refused."
  out[#out + 1] = ".SH FILES\n.TP\n.I ~/.config/mailmill/init.lua\nRuns before every script: accounts and defaults shared by all.\n.TP\n.I ~/.local/state/mailmill\n" ..
    "Marks, outbox, stores and the spool of held messages (XDG_STATE_HOME, or \\-\\-state)."
  out[#out + 1] = ".SH SCRIPTS"
  man_text(out, guide)
  local kept = {}
  local unfilled = false
  for line in (table.concat(out, "\n") .. "\n"):gmatch("(.-)\n") do -- an empty line of the README counts only between paragraphs
    if kept[#kept] == ".PP" and line:match("^%.[STPI]") then kept[#kept] = nil end
    if line == ".nf" or line == ".fi" then unfilled = line == ".nf" end
    if line == "" and not unfilled then goto continue end
    if line ~= ".PP" or not (kept[#kept] or ""):match("^%.S") then
      for piece in (unfilled and line or fold(line)):gmatch("[^\n]*") do kept[#kept + 1] = piece end
    end
    ::continue::
  end
  if kept[#kept] == ".PP" then kept[#kept] = nil end
  return table.concat(kept, "\n") .. "\n"
end

local function write(name, text)
  local file <close> = assert(io.open(name, "wb"))
  assert(file:write(text))
end

local function verify(blocks)
  local old, new = readme(blocks)
  local missing = undocumented()
  for _, text in ipairs(missing) do print(text) end
  if old ~= new then print("lua/README.md: the reference or the list of defects is not what the sources say; lua5.4 lua/doc.lua readme writes it anew") end
  os.exit(old == new and #missing == 0)
end

local mode, target = arg[1], arg[2]
local blocks = all_blocks()
if mode == "api" then
  write(target, api_text(blocks))
elseif mode == "readme" then
  write(top .. "lua/README.md", (select(2, readme(blocks))))
elseif mode == "verify" or mode == "--check" then
  verify(blocks)
elseif mode == "man" then
  write(target, man_page())
else
  error("usage: lua5.4 lua/doc.lua api OUT | readme | verify | man OUT")
end
