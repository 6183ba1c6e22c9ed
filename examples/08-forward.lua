-- What is urgent goes on to somebody else. A forward is a new mail in the outbox; it leaves through mail.smarthost. From an archive it waits
-- there until `mailmill outbox release` (or --send): so a rule can be tried on old mail without alarming anyone.
--   mailmill examples/08-forward.lua; mailmill outbox

mail.source "mail/sample.mbox"
mail.smarthost { host = "smtp.example.org", from = "me@example.org" }

mail.rule("Urgent", { subject = { "urgent*", re "(?i)disk .* full" } }, function(m)
  m:forward("oncall@example.org", { subject = "[urgent] " .. m.subject, text = "From " .. m.from .. ", as it came:" })
end)
