-- The same file never twice: mail.seen remembers a message, a part or a string, also for the next run; mail.store keeps what you want.
--   mailmill --root /tmp/out examples/06-once.lua

mail.source "mail/sample.mbox"

mail.on_message(function(m)
  local totals = mail.store "totals"
  for part in m:attachments "*.pdf" do
    if mail.seen(part) then
      print("again: " .. part.name .. " in \"" .. m.subject .. "\"")
    else
      part:save "papers/{name}"
      totals[m.from] = (totals[m.from] or 0) + 1        -- committed with the message, or not at all
    end
  end
end)

mail.on_finish(function()
  for who, n in pairs(mail.store "totals") do print(n, who) end
end)
