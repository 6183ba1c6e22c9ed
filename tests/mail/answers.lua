-- What mailmill's Lua API says about each message of a folder, one JSON object a line, for check.py. run.py names the files by number and
-- hashes the texts: this script does only what any script could.
mail.limits { text = "64 MiB", heap = "512 MiB", header_field = "1 MiB", boundary = 16384, cpu = 60 }        -- the oracle knows no limits

local function address_list(m, field)
  local all = {}
  for a in m:addresses(field) do
    if a.addr ~= "" or (a.name or "") ~= "" then all[#all + 1] = json.array { a.name or "", a.written } end
  end
  return json.array(all)
end

local function describe(part)
  local charset = part.charset
  if charset == "us-ascii" then charset = nil end        -- declared or assumed: the API does not tell
  return {
    path = part.path, content_type = part.type, disposition = part.disposition, filename = part.name, charset = charset,
    len = part.size, sha256 = part.sha256, text = part.type:match "^text/" and part.text or nil,
  }
end

mail.on_message(function(m)
  local parts, defects = {}, {}
  for part in m:parts() do parts[#parts + 1] = describe(part) end
  for name in m.defects do defects[#defects + 1] = name end
  print(json.encode {
    source = m.source, subject = m.subject, from = address_list(m, "from"), to = address_list(m, "to"), date = m.date,
    parts = json.array(parts), defects = json.array(defects),
  })
end)
