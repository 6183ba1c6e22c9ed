-- PDFs by month and sender, the same PDF never twice; what was filed goes to a folder of its own.
--   mailmill --root /tmp/out examples/09-invoices.lua
-- On a server of yours it would say, instead of mail.source:
--   mail.account { name = "work", host = "pop.example.com", user = "me@example.com", password = secret.command { "pass", "show", "mail/work" } }

mail.source "mail/sample.mbox"
mail.timezone "Europe/Berlin"

mail.rule("Invoices", { from = { "*@billing.example.com", "*@shop.example" } }, function(m)
  m.vars.number = re.match(m.subject, [[(?i)(?:invoice|bestellung)\s+#?(\d+)]]) or "unnumbered"
  for part in m:attachments "*.pdf" do
    if not mail.seen(part) then
      part:save "invoices/{date:%Y-%m}/{from.domain}/{vars.number} {name}"
    end
  end
  m:deliver "Archive/Billing"
end)
