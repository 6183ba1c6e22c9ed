-- What the Lua API says about each message that run.py has made of a vector, one JSON object a line.
mail.limits { heap = "256 MiB", text = "8 MiB" }

local function names(list)
  local all = {}
  for name in list do all[#all + 1] = name end
  return json.array(all)
end

local function addresses(m)
  local all = {}
  for a in m:addresses "To" do
    all[#all + 1] = { group = a.group, name = a.name, addr = a.written, valid = a.valid }
  end
  return json.array(all)
end

local function describe(part)
  return { name = part.name, type = part.type, len = part.size, sha256 = part.sha256 }
end

-- The recipients that a delivery report names as failed or delayed (RFC 3464): what a script for bounces reads.
local bad = { failed = true, failure = true, error = true, delayed = true }

local function recipient(block, which)
  local value = block:match("\n" .. which .. "%-[Rr]ecipient:%s*([^\n]*)")
  return value and value:gsub("^[^;<]*;%s*", ""):match "^<?([^>]*)"
end

local function failed_recipients(m)
  local failed = {}
  for part in m:parts { type = "message/delivery-status" } do
    for block in (part.text:gsub("\n[ \t]+\n", "\n\n") .. "\n\n"):gmatch "(.-)\n\n+" do
      local unfolded = ("\n" .. block):gsub("\n[ \t]+", " ")
      local action = unfolded:match "\n[Aa]ction:%s*(%a+)"
      local who = recipient(unfolded, "[Oo]riginal") or recipient(unfolded, "[Ff]inal")
      if bad[(action or ""):lower()] and who then failed[#failed + 1] = who end
    end
  end
  return json.array(failed)
end

mail.on_message(function(m)
  local parts, attachments, inside = {}, {}, {}
  for part in m:parts() do
    parts[#parts + 1] = describe(part)
    for member in part:parts() do
      if member.name then inside[#inside + 1] = describe(member) end
    end
  end
  for part in m:attachments() do attachments[#attachments + 1] = describe(part) end
  print(json.encode {
    source = m.source, subject = m.subject, to = addresses(m), date = m.date, received = m.received, defects = names(m.defects),
    references = names(m.references), keywords = m:header "Keywords", parts = json.array(parts), attachments = json.array(attachments), inside = json.array(inside),
    failed = failed_recipients(m),
  })
end)
