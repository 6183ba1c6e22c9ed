-- The words of a Lua text that Lua itself has found well-formed: for mail.check.

local keywords = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true until while"):gmatch("%a+") do
  keywords[word] = true
end

local escapes = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v", ["\n"] = "\n" }

local function unescape(body)
  body = body:gsub("\\z%s*", "")
  return (body:gsub("\\(%d%d?%d?)", function(d) return string.char(tonumber(d) % 256) end)
    :gsub("\\x(%x%x)", function(h) return string.char(tonumber(h, 16)) end)
    :gsub("\\u{(%x+)}", function(h) return utf8.char(tonumber(h, 16)) end)
    :gsub("\\(.)", function(c) return escapes[c] or c end))
end

local function quoted_end(text, at)
  local quote, i = text:sub(at, at), at + 1
  while true do
    local c = text:sub(i, i)
    if c == "\\" then
      i = i + 2
    elseif c == quote or c == "" then
      return i
    else
      i = text:find("[\\" .. quote .. "]", i) or #text + 1
    end
  end
end

-- The tokens: kinds, values and lines in three arrays. Kinds: name, string, number, or the symbol or keyword itself.
local function tokens_of(text)
  local kinds, values, lines, n, at, line = {}, {}, {}, 0, 1, 1
  local function add(kind, value)
    n = n + 1
    kinds[n], values[n], lines[n] = kind, value, line
  end
  local function pass(stop)
    line = line + select(2, text:sub(at, stop):gsub("\n", ""))
    at = stop + 1
  end
  while at <= #text do
    local c = text:sub(at, at)
    local equals = text:match("^%-%-%[(=*)%[", at) or text:match("^%[(=*)%[", at)
    if c:match("%s") then
      pass((text:find("%S", at) or #text + 1) - 1)
    elseif equals and (c == "-" or c == "[") then
      local begin = text:find("[", at, true) + #equals + 2
      local stop = text:find("]" .. equals .. "]", begin, true) or #text
      if c == "[" then add("string", (text:sub(begin, stop - 1):gsub("^\r?\n", ""))) end
      pass(stop + #equals + 1)
    elseif text:match("^%-%-", at) then
      pass((text:find("\n", at, true) or #text + 1) - 1)
    elseif c == '"' or c == "'" then
      local stop = quoted_end(text, at)
      add("string", unescape(text:sub(at + 1, stop - 1)))
      pass(stop)
    elseif c:match("[%a_]") then
      local word = text:match("^[%w_]+", at)
      add(keywords[word] and word or "name", word)
      at = at + #word
    elseif text:match("^%.?%d", at) then
      local number = text:match("^0[xX][%x%.]*[pP]?[+-]?%x*", at) or text:match("^[%d%.]+[eE][+-]?%d+", at) or text:match("^[%d%.]+", at)
      add("number", number)
      at = at + #number
    else
      local symbol = text:match("^%.%.%.", at) or text:match("^[=~<>]=", at) or text:match("^::", at) or text:match("^%.%.", at) or text:match("^//", at)
        or text:match("^<<", at) or text:match("^>>", at) or c
      add(symbol)
      at = at + #symbol
    end
  end
  n = n + 1
  kinds[n], lines[n] = "end of file", line
  return kinds, values, lines
end

return tokens_of
