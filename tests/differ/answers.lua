-- What mailmill says about each message of a folder: a JSON object a line, for run.py.
mail.limits { cpu = 60, heap = "512 MiB" }

local function addrs(m, field)
  local all = {}
  for a in m:addresses(field) do all[#all + 1] = a.addr end
  return json.array(all)
end

mail.on_message(function(m)
  local parts, defects = {}, {}
  for p in m:parts() do
    parts[#parts + 1] = { type = p.type, disposition = p.disposition, name = p.name, sha256 = p.sha256 }
    local _ = p.text
  end
  local from, to = addrs(m, "from"), addrs(m, "to")
  for name in m.defects do defects[#defects + 1] = name end
  print(json.encode {
    source = m.source, subject = m.subject, from = from, to = to, parts = json.array(parts), defects = json.array(defects),
  })
end)
