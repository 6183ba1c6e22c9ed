-- Attachments by month and sender. A path is a template; whatever a message puts into it is made safe.
--   mailmill --root /tmp/out examples/04-attachments.lua            (--dry-run in front shows what would happen)

mail.source "mail/sample.mbox"
mail.timezone "UTC"                     -- of the dates in templates; local time unless said

mail.on_message(function(m)
  for part in m:attachments() do
    part:save "attachments/{date:%Y-%m}/{from.domain}/{name}"
  end
end)
