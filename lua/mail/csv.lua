-- Tables of comma separated values (RFC 4180): lists of senders, folders by customer.

local prim = require "mail.primitives"

local csv = {}

local SIZE_MAX = 64 * 1024 * 1024 -- a table that a script reads whole

local function parse_quoted(text, at, line)
  local pieces = {}
  while true do
    local quote = text:find('"', at, true)
    if not quote then return nil, ("line %d: a quoted field has no end"):format(line) end
    pieces[#pieces + 1] = text:sub(at, quote - 1)
    if text:sub(quote + 1, quote + 1) ~= '"' then return table.concat(pieces), quote + 1 end
    pieces[#pieces + 1] = '"'
    at = quote + 2
  end
end

-- The fields of the record that begins at `at`; answers them and where the next begins.
local function parse_record(text, at, line, separator)
  local fields, stop = {}, "[\r\n" .. separator:gsub("%p", "%%%0") .. "]"
  while true do
    local field, behind
    if text:sub(at, at) == '"' then
      field, behind = parse_quoted(text, at + 1, line)
      if not field then return nil, behind end
    else
      behind = text:find(stop, at) or #text + 1
      field = text:sub(at, behind - 1)
    end
    fields[#fields + 1] = field
    local mark = text:sub(behind, behind)
    if mark == separator then
      at = behind + 1
    elseif mark == "" or mark == "\n" then
      return fields, behind + 1
    elseif mark == "\r" then
      return fields, behind + (text:sub(behind + 1, behind + 1) == "\n" and 2 or 1)
    else
      return nil, ("line %d: text behind a quoted field"):format(line)
    end
  end
end

local function count_lines(text, from, to)
  local n = 0
  for _ in text:sub(from, to):gmatch "\n" do n = n + 1 end
  return n
end

local function check_headings(fields)
  local seen = {}
  for i, name in ipairs(fields) do
    if name == "" then return nil, ("heading %d is empty"):format(i) end
    if seen[name] then return nil, ("the heading '%s' stands there twice"):format(name) end
    seen[name] = true
  end
  return fields
end

local function to_row(headings, fields, line)
  if #fields > #headings then
    return nil, ("line %d: %d fields where there are %d headings"):format(line, #fields, #headings)
  end
  local row = {}
  for i, name in ipairs(headings) do row[name] = fields[i] or "" end
  return row
end

--- csv.parse(text, {separator=}) -> rows, or nil, sentence, code
-- What csv.read does, for text that is at hand.
-- option separator: one character instead of the comma.
function csv.parse(text, options)
  if type(text) ~= "string" then prim.blame "csv.parse takes text" end
  if options ~= nil and type(options) ~= "table" then prim.blame('csv: the options are a table, { separator = ";" }, not a ' .. type(options)) end
  local separator = ","
  for key, value in pairs(options or {}) do
    if key ~= "separator" then
      local near = prim.nearest(tostring(key), { "separator" })
      prim.blame(("unknown option '%s' of csv.read%s"):format(tostring(key), near and " (did you mean 'separator'?)" or ""))
    end
    if type(value) ~= "string" or #value ~= 1 or value:find '["\r\n]' then prim.blame "csv.read: the separator is one character" end
    separator = value
  end
  local rows, headings, line = {}, nil, 1
  local at = text:sub(1, 3) == "\xef\xbb\xbf" and 4 or 1
  while at <= #text do
    local fields, behind = parse_record(text, at, line, separator)
    if not fields then return nil, behind, "syntax" end
    if not (#fields == 1 and fields[1] == "") then -- an empty line is no row
      local made, why
      if headings then
        made, why = to_row(headings, fields, line)
        rows[#rows + 1] = made
      else
        made, why = check_headings(fields)
        headings = made
      end
      if not made then return nil, why, "syntax" end
    end
    line = line + count_lines(text, at, behind - 1)
    at = behind
  end
  rows.headings = headings or {}
  return rows
end

-- All of a file, or a little more than SIZE_MAX of it; in blocks, because one read of that size takes its memory beforehand.
local function read_all(f)
  local blocks, size = {}, 0
  while size <= SIZE_MAX do
    local block, trouble = f:read(65536)
    if trouble then return nil, trouble end
    if not block then break end
    blocks[#blocks + 1], size = block, size + #block
  end
  return table.concat(blocks)
end

--- csv.read(file, {separator=}) -> rows, or nil, sentence, code
-- The rows of a CSV file (RFC 4180; its first line names the columns), each a table by heading: rows[1].sender. A row with fewer fields has empty
-- ones at its end; one with more is an error. rows.headings are the headings in order. A relative name starts at the script.
-- option separator: one character instead of the comma.
function csv.read(file, options)
  if type(file) ~= "string" then prim.blame "csv.read takes a file name" end
  local ok, f, why = pcall(io.open, file, "rb")
  if not ok then prim.blame("csv.read: " .. f) end -- no name at all: a NUL in it, a ~ that means nothing
  if not f then return nil, "reading " .. why, "io" end
  local text, trouble = read_all(f)
  f:close()
  if trouble then return nil, ("reading %s: %s"):format(file, trouble), "io" end
  if #text > SIZE_MAX then return nil, ("%s is larger than 64 MiB"):format(file), "limit" end
  local rows, sentence, code = csv.parse(text, options)
  if not rows then return nil, file .. ": " .. sentence, code end
  return rows
end

return csv
