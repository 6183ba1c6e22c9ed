-- Rules: a name, a test, an action. They run in order until m:stop(). A table as test: all of it must hold; a list: one of it.
--   mailmill --root /tmp/out examples/05-rules.lua

mail.source "mail/sample.mbox"

mail.rule("Spam", { header = { ["X-Spam-Flag"] = "yes" } }, function(m)
  m:deliver "Junk"
  m:stop()                              -- nothing below looks at it
end)

mail.rule("Lists", { list_id = "*" }, function(m)       -- "*": present, whatever it says
  m:deliver "Lists/{list_id}"
  m:stop()
end)

mail.rule("Machines", mail.any { { header = { ["Auto-Submitted"] = "auto-*" } }, { from = "*-dmarc@*" } }, function(m)
  m:deliver "Machines"
  m:stop()
end)

mail.rule("Papers", { attachment = { type = "application/pdf" }, from = mail.none { "*@example.com" } }, function(m)
  m:deliver "Papers"
  m:stop()
end)

mail.on_message(function(m)
  m:deliver("Personal", { flags = m.subject:contains "lunch" and "F" or "" })
end)
