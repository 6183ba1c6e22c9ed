-- The attachments out of anything.
local o = mail.options {
  about = "Saves the attachments of messages as files; a name that is taken is numbered, the same content is saved once.",
  sources = true,
  { "output", short = "o", type = "path", default = ".", value = "DIR", help = "where the files go" },
  { "name", value = "GLOB", help = 'only attachments with such a name: "*.pdf"' },
  { "type", value = "TYPE", help = 'only attachments of this type: "image/*"' },
  { "template", default = "{name}", value = "TEMPLATE", help = "how files are called below DIR" },
  { "unpack", short = "u", help = "archives are opened: their files instead of them" },
  { "all", short = "a", help = "every part, not only what a person would call an attachment" },
}

mail.root(o.output)

local filter = { name = o.name, type = o.type, unpack = o.unpack and not o.all }

mail.on_message(function(m)
  local found = o.all and m:parts(filter) or m:attachments(filter)
  for part in found do print(part:save(o.template)) end
end)
