-- Asks each message of a folder for everything that the API can tell, and files it whole: no error, and not a byte lost.
mail.limits { heap = "512 MiB", cpu = 60 }

local fields = {
  "subject", "from", "from_name", "sender", "reply_to", "to", "cc", "bcc", "date", "received", "size", "envelope_to", "message_id",
  "in_reply_to", "references", "list_id", "text", "html", "sha256",
}
local part_fields = {
  "path", "type", "detected", "charset", "disposition", "name", "id", "size", "encoded_size", "sha256", "text", "content", "attached", "reason",
  "encrypted",
}

local function read(part)
  local n = 0
  for _, field in ipairs(part_fields) do local _ = part[field] end
  local reader = part:reader()
  for block in function() return reader:read() end do n = n + #block end
  assert(n == part.size, ("the part's reader gives %d bytes, its size is %d"):format(n, part.size))
end

mail.on_message(function(m)
  for _, field in ipairs(fields) do local _ = m[field] end
  for _, field in ipairs { "from", "to", "cc", "Resent-To" } do
    for a in m:addresses(field) do assert(a.valid or a.domain == "") end
  end
  for part in m:parts() do read(part) end
  for part in m:attachments() do read(part) end
  for name in m.defects do assert(m.defects[name]) end
  m:save(m.source:match "([^/]+)%.eml$" .. ".out")
end)
