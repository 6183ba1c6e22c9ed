-- The structure of messages: what they say of themselves, their parts, what is odd about them.
local o = mail.options {
  about = "Shows the structure of messages: header, parts, attachments, defects.",
  sources = true,
  { "text", short = "t", help = "also the readable text" },
  { "header", short = "H", value = "NAME", many = true, help = "also this header field; may be given again" },
}

local function people(list)
  local all = {}
  for who in list do all[#all + 1] = who end
  return table.concat(all, ", ")
end

local function line(label, value)
  if value and value ~= "" then print(("%-12s%s"):format(label, value)) end
end

local function show_part(part)
  local name = part.name and ('  "%s"'):format(part.name) or ""
  local found = part.detected ~= "" and part.detected ~= part.type and (" (is %s)"):format(part.detected) or ""
  local charset = part.charset and "; " .. part.charset or ""
  print(("  %-7s %s%s%s  %d bytes%s"):format(part.path, part.type, charset, found, part.size, name))
  if part.attached then print("          attached: " .. part.reason) end
  if part.encrypted then print("          encrypted") end
end

local first = true

mail.on_message(function(m)
  if not first then print(("-"):rep(72)) end
  first = false
  line("source", m.source)
  line("subject", m.subject)
  line("from", m.from_name ~= "" and ("%s <%s>"):format(m.from_name, m.from) or m.from)
  line("to", people(m.to))
  line("cc", people(m.cc))
  line("date", os.date("!%Y-%m-%d %H:%M:%S UTC", m.date))
  line("message-id", m.message_id)
  line("list", m.list_id)
  for _, name in ipairs(o.header) do
    for value in m:headers(name) do line(name:lower(), value) end
  end
  line("size", ("%d bytes"):format(m.size))
  print "parts"
  for part in m:parts() do show_part(part) end
  local defects = {}
  for name in m.defects do defects[#defects + 1] = name end
  line("defects", table.concat(defects, ", "))
  if o.text then print("\n" .. m.text) end
end)
